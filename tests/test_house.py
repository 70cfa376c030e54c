"""The house rules that no linter knows: rooms, sizes, doors, and who asks whom."""

import ast
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import anomaly_lab
from anomaly_lab.verbs import VERBS

PACKAGE = Path(anomaly_lab.__file__).parent
CHECKOUT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = {
    *("backbones", "config", "data", "estimators", "evaluation", "layers", "methods"),
    *("pictures", "ranks", "report", "runs", "sweeps", "synthesis", "training", "verbs"),
}
# Imports of our own modules inside a function, each with the heavy library that it spares.
LAZY = {
    ("__init__.py", "anomaly_lab.config.command_line"): "Hydra, where only metrics are wanted",
    ("__init__.py", "anomaly_lab.train"): "torch, where only --help is wanted",
    ("__init__.py", "anomaly_lab.loading"): "torch, as above",
    ("__main__.py", "anomaly_lab.train"): "torch, as above",
    ("__main__.py", "anomaly_lab.ranks.following"): "torch, as above",
    ("verbs/report.py", "anomaly_lab.report.rescoring"): "torch, where no metric is computed anew",
    ("sweeps/sweepers.py", "anomaly_lab.sweeps.plan"): "torch, as above",
    ("sweeps/sweepers.py", "anomaly_lab.sweeps.search"): "torch, as above",
    ("sweeps/sweepers.py", "anomaly_lab.sweeps.sweep"): "torch, as above",
}
# Below 20 lines for a reason: a door of a few lines, and a listing that has no more to say.
SHORT = {"check.py", "data/sets/mvtec.py"}


def named(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, kind):
                yield named(file), node


def test_the_top_level_has_few_modules_and_the_folders_of_the_trip():
    modules = {path.name for path in PACKAGE.glob("*.py")}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert len(modules) <= 8, modules
    assert folders == FOLDERS


def test_the_composition_root_is_a_page():
    root = PACKAGE / "train.py"
    assert len(root.read_text().splitlines()) <= 100
    assert not [node for name, node in nodes(ast.Import) if name == "train.py" and node.col_offset]


def test_files_hold_an_idea_and_no_more_than_one_can_read():
    lengths = {named(file): len(file.read_text().splitlines()) for file in FILES}
    assert [name for name, length in lengths.items() if length > 250] == []
    tiny = {name for name, length in lengths.items() if length < 20 and not name.endswith("__init__.py")}
    assert tiny - SHORT == set()


def test_each_file_of_tests_has_a_name_of_its_own():
    """Two of one name, in folders that are no packages, end the whole suite at a fresh checkout."""
    names = Counter(file.name for file in (CHECKOUT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_line_is_too_long_and_no_page_is_wider_than_a_screen():
    files = [*FILES, *(CHECKOUT / "tests").rglob("*.py"), *(CHECKOUT / "conf").rglob("*.yaml")]
    wide = [
        f"{file.relative_to(CHECKOUT)}:{number}"
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), 1)
        # Longer may be a command in a recipe's head, and what only a linter reads.
        if len(re.sub(r" +# (noqa|type: ignore).*", "", line)) > 110 and not line.startswith("#   ")
    ]
    assert wide == []


def test_own_modules_are_imported_at_the_top_but_for_a_named_few():
    found = set()
    for name, node in nodes(ast.FunctionDef):
        for inner in ast.walk(node):
            if isinstance(inner, ast.ImportFrom) and (inner.module or "").startswith("anomaly_lab"):
                found.add((name, inner.module))
    assert found == LAZY.keys()


def saves_a_line(node: ast.Assign) -> bool:
    """Say whether ``a, b = x, y`` could be two statements: no value needs what another target held before."""
    target, value = node.targets[0], node.value
    if not (isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)):
        return False
    if len(target.elts) != len(value.elts) or any(
        isinstance(e, ast.Starred) for e in (*target.elts, *value.elts)
    ):
        return False
    names = {ast.unparse(element) for element in target.elts}
    used = {ast.unparse(inner) for inner in ast.walk(value) if isinstance(inner, ast.Name | ast.Attribute)}
    return not names & used


def test_no_tuple_assignment_only_saves_a_line():
    assert [f"{name}:{node.lineno}" for name, node in nodes(ast.Assign) if saves_a_line(node)] == []
    assert saves_a_line(ast.parse("a, b = c, d").body[0])
    assert not saves_a_line(ast.parse("a, b = b, a").body[0])


def test_methods_are_told_and_data_do_not_ask_the_trainer():
    asking = {
        "methods/": r"trainer\.datamodule",
        "data/": r"fit_loop|self\.trainer",
        "": r"dataloader_idx ?[=!]=",
    }
    found = [
        f"{named(file)}: {pattern}"
        for file in FILES
        for folder, pattern in asking.items()
        if named(file).startswith(folder) and re.search(pattern, file.read_text())
    ]
    assert found == []


def test_comments_point_to_pages_that_are_there():
    texts = [*FILES, *(CHECKOUT / "conf").rglob("*.yaml"), *(CHECKOUT / "tests").rglob("*.py")]
    for file in texts:
        text = file.read_text()
        if file.name != "test_house.py":
            assert not re.search(r"\bGAP\b [0-9]|\bmethods [0-9]\.[0-9]|architecture [0-9]\.", text), file
        for page, number in re.findall(r"docs/methods/(\w+)\.md,\s+(?:#\s+)?notes? (\d+)", text):
            assert f"### Note {number}\n" in (CHECKOUT / "docs" / "methods" / f"{page}.md").read_text(), file


def classes() -> Iterator[type]:
    for file in FILES:
        if file.name not in {"__main__.py", "check.py"}:
            module = import_module(
                ".".join(("anomaly_lab", *file.relative_to(PACKAGE).with_suffix("").parts))
            )
            yield from (
                v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == module.__name__
            )


def test_a_class_is_abstract_or_final_and_its_name_is_its_own():
    found = list(classes())
    plain = [
        kind.__name__
        for kind in found
        if not inspect.isabstract(kind)
        and not getattr(kind, "__final__", False)
        and not issubclass(kind, tuple | Exception)
        and not getattr(kind, "_is_protocol", False)
        and kind.__name__ not in {"Augmentation", "Mirror", "Frame"}
    ]
    assert plain == []
    # A run's hash knows a class by its name alone.
    assert [name for name, count in Counter(kind.__name__ for kind in found).items() if count > 1] == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_a_module_with_work_to_do_and_is_in_the_help(verb):
    module = import_module(f"anomaly_lab.verbs.{verb}")
    assert module.__doc__
    assert list(inspect.signature(module.work).parameters) == ["asked"]
    help_text = (CHECKOUT / "conf" / "config.yaml").read_text()
    assert re.search(rf"^ +{verb} +{VERBS[verb]}$", help_text, re.MULTILINE)
