"""Print the trip from the command line to the number: every file of ours that ``model=draem`` imports on the way to it.

Pictures come after the numbers, so the run makes none. The house goal is 1,000 lines, all counted. It is not met; the
ceiling keeps the trip from growing until it is. It was 2,700 before registration, copies of an augmentation, the
identity of pretrained weights, the reuse of decoded images and the ratio of pseudo images came into files that every
run imports.
"""

import ast
import sys
import tempfile
from pathlib import Path

GOAL, CEILING = 1000, 2772


def main() -> None:
    """Run two steps for real, then count what was imported; exit 1 above the ceiling."""
    from anomaly_lab.__main__ import main as command_line
    from tests.trees import mvtec_tree, normal_image, write_png

    with tempfile.TemporaryDirectory() as temporary:
        root = mvtec_tree(Path(temporary) / "data")
        write_png(Path(temporary) / "textures" / "one.png", normal_image((64, 64), 0))
        data = ["data=mvtec", f"data.root={root}", "data.category=part", "data.image_size=64", "data.batch_size=2"]
        small = ["model.reconstructive_width=4", "model.discriminative_width=4", "trainer=debug"]
        textures = f"synthesis.textures={temporary}/textures"
        sys.argv = [
            "anomaly_lab",
            "model=draem",
            *data,
            *small,
            textures,
            f"runs={temporary}/runs",
            "evaluation.overlays=0",
        ]
        if command_line():
            sys.exit("the run failed")
    ours = [module for name, module in sys.modules.items() if name.split(".")[0] == "anomaly_lab"]
    files = sorted({Path(module.__file__) for module in ours if module.__file__})
    lines = {file: file.read_text().splitlines() for file in files}
    for file in files:
        print(f"{len(lines[file]):6d}  {file.relative_to(files[0].parent)}")
    total, code = sum(map(len, lines.values())), sum(map(code_lines, files))
    print(f"{total:6d}  lines from the command line to the number, {code} of them code; goal {GOAL}, ceiling {CEILING}")
    sys.exit(total > CEILING)


def code_lines(file: Path) -> int:
    """Count the lines that are neither blank, nor comment, nor docstring."""
    text = file.read_text()
    described = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, described) and ast.get_docstring(node)]
    skipped = {line for node in nodes for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)}
    rest = (line.strip() for number, line in enumerate(text.splitlines(), 1) if number not in skipped)
    return sum(bool(line) and not line.startswith("#") for line in rest)


if __name__ == "__main__":
    main()
