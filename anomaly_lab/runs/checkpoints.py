"""Checkpoints: tensors and plain types only, and only those of the recipe asked for."""

import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module

from anomaly_lab.errors import RunError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.reading import one_line

AGAIN = "remove it to train again"
MOST_PARTS = 30_000  # modules and parameters that a network is built from; the largest of timm have 5,000
# What a checkpoint may name, of what torch lets a file call: nothing that makes memory of a number.
NAMED = re.compile(
    r"collections (OrderedDict|Counter)|(__builtin__|builtins) (set|complex)"
    r"|torch ([a-z]\w*|Size|[A-Z]\w*Storage)|torch\._utils _rebuild_\w+|torch\._tensor _rebuild_from_type_v2"
    r"|torch\.nn\.parameter Parameter|torch\.serialization _get_layout"
)
ZIP_OFFSET = 6  # where zipfile keeps it in the end record
TIED = 4  # names at most that a weight has on the average


def read_checkpoint(file: Path, training_hash: str) -> dict[str, Any]:
    """Return a checkpoint's content; its ``state_dict`` holds finite tensors by name.

    It takes no more memory than the file has bytes, or `TIED` times that where it is loaded: what is packed,
    or says more numbers than it holds, is refused.

    Raises:
        RunError: it cannot be read, belongs to another recipe, or holds something else.
    """
    if not file.is_file():  # a pipe would be waited for
        raise RunError(f"{file}: is no file; {AGAIN}")
    try:
        size = file.stat().st_size
        if strange := _strange(file, size):
            raise RunError(f"{file}: {strange}, so no run wrote it; {AGAIN}")
        with warnings.catch_warnings(action="ignore"):  # of kinds of tensor that no run writes
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        problem = _problem(content, training_hash, size)
    except RunError:
        raise
    except Exception as error:  # unpickling garbage raises almost anything
        raise RunError(f"{file}: is no readable checkpoint ({type(error).__name__}); {AGAIN}") from error
    if problem:
        raise RunError(f"{file}: {problem}; {AGAIN}")
    return content


def _strange(file: Path, size: int) -> str:
    """Say what in the form of a file would take more memory than its bytes, or nothing."""
    with file.open("rb") as opened:
        if opened.read(4) != b"PK\x03\x04":  # torch reads such a file in an older way
            return "is no readable checkpoint, as its first bytes show"
        end = zipfile._EndRecData(opened)  # type: ignore[attr-defined]  # says where the list of records lies
    with zipfile.ZipFile(file) as records:
        # Where it does not lie there, zipfile looks elsewhere than torch.
        if end is None or records.comment or end[ZIP_OFFSET] != records.start_dir:
            return "is no readable checkpoint, as its records are not listed where it says"
        return _strange_records(records, size)


def _strange_records(records: zipfile.ZipFile, size: int) -> str:
    """Say what in the records would; torch finds one whatever the case of its name."""
    if sum(record.file_size for record in records.infolist()) > size:  # torch writes records as they are
        return "is packed"
    lists = [name for name in records.namelist() if name.lower().endswith(".pkl")]
    if [name.rpartition("/")[2] for name in lists] != ["data.pkl"]:
        return "has not one record data.pkl"
    numbers = [name.rpartition("/data/")[2] for name in records.namelist() if "/data/" in name.lower()]
    if len(set(numbers)) < len(numbers) or not all(re.fullmatch("[0-9]+", number) for number in numbers):
        return "has a record that torch would find by two names"
    for code, named, _ in pickletools.genops(records.read(lists[0])):
        if code.name in {"GLOBAL", "INST", "STACK_GLOBAL"} and not NAMED.fullmatch(str(named)):
            return f"names {one_line(named)}"
    return ""


def _problem(content: Any, training_hash: str, size: int) -> str:
    """Say what is wrong with the content of a checkpoint of ``size`` bytes, or nothing."""
    if not isinstance(content, dict):
        return f"is no checkpoint, but a {type(content).__name__}"
    if content.get("training_hash") != training_hash:
        found, wanted = (one_line(value)[:8] for value in (content.get("training_hash"), training_hash))
        hashes = f"training hash {found}, wanted {wanted}"
        return f"was trained with another recipe or on other data ({hashes})"
    state = content.get("state_dict")
    return _problem_of(state, size) if isinstance(state, dict) else "has no state_dict"


def _problem_of(state: dict[Any, Any], size: int) -> str:
    """Say which weight is no finite tensor of numbers that lie in the file, or nothing."""
    for name, value in state.items():
        if not isinstance(value, Tensor):
            return f"{one_line(name)} is no tensor"
        if value.layout != torch.strided or value.is_meta:
            return f"{one_line(name)} does not hold its numbers"
    if sum(value.numel() * value.element_size() for value in state.values()) > TIED * size:
        return f"says more numbers than its {size} bytes hold"
    wrong = (name for name, value in state.items() if not value.isfinite().all())
    return next((f"{one_line(name)} has values that are not finite" for name in wrong), "")


def load_weights(method: AnomalyMethod, file: Path, training_hash: str) -> None:
    """Give the method the weights of a finished training.

    Raises:
        RunError: as `read_checkpoint`, or they do not fit the method.
    """
    _give(method, read_checkpoint(file, training_hash), file)


def built_for(
    build: Callable[[], AnomalyMethod],
    file: Path,
    training_hash: str,
    *,
    outline: Callable[[AnomalyMethod], None] | None,
) -> AnomalyMethod:
    """Return the method that ``build`` makes, with the weights of a checkpoint.

    With ``outline`` it is built without memory first, as what is asked for may be of any size: only if the
    weights fit, and ``outline`` does not raise for what was built, is it built in earnest.

    Raises:
        RunError: as `read_checkpoint`, or the weights do not fit the method.
    """
    content = read_checkpoint(file, training_hash)
    if outline is not None:
        with torch.device("meta"), _few_parts(file):
            outlined = build()
        sizes = {name: value.to("meta") for name, value in content["state_dict"].items()}
        _give(outlined, content | {"state_dict": sizes}, file)
        outline(outlined)
    method = build()
    _give(method, content, file)
    return method


@contextmanager
def _few_parts(file: Path) -> Iterator[None]:
    """Raise RunError once the body builds a network of more than `MOST_PARTS`, which could go on for ever."""
    parts = iter(range(MOST_PARTS))

    def count(*_: object) -> None:
        if next(parts, None) is None:
            raise RunError(f"{file}: does not fit the method (its config asks for over {MOST_PARTS} layers)")

    hooks = [
        module.register_module_parameter_registration_hook(count),
        module.register_module_module_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _give(method: AnomalyMethod, content: dict[str, Any], file: Path) -> None:
    own = {name: value.dtype for name, value in method.state_dict().items()}
    state = content["state_dict"]
    said = [
        f"{name} of {v.dtype}, not {own[name]}"
        for name, v in state.items()
        if own.get(name, v.dtype) != v.dtype
    ]
    try:
        method.on_load_checkpoint(content)
        method.load_state_dict(state)
    except Exception as error:  # names and shapes that do not fit raise each their own
        # The first line says that there are errors, those that follow say which.
        lines = str(error).strip().splitlines()
        said = [next((line for line in lines if "mismatch" in line), lines[min(1, len(lines) - 1)])]
    if said:
        raise RunError(f"{file}: does not fit the method ({one_line(said[0])}); {AGAIN}")


def save_weights(method: AnomalyMethod, directory: RunDirectory, training_hash: str) -> None:
    """Keep the weights of a training that has ended; the state to resume from is needed no more."""
    with directory.replacing(directory.checkpoint.name) as path, path.open("wb") as file:
        torch.save({"state_dict": method.state_dict(), "training_hash": training_hash}, file)
    directory.resume_checkpoint.unlink(missing_ok=True)
