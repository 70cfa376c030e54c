"""Commands and code of README and docs, as a reader copies them, and in a form small enough for a test."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from tests.support.runs import CHECKOUT
from tests.support.trees import normal_image, write_png

OURS = ["python", "-m", "anomaly_lab"]


def pages(*names: str) -> list[Path]:
    """Return the pages of these names, a name being a path below the checkout; or all of a folder."""
    found = [CHECKOUT / name for name in names]
    return [page for path in found for page in (sorted(path.glob("*.md")) if path.is_dir() else [path])]


def blocks(page: Path, fence: str) -> list[str]:
    """Return the contents of the fenced blocks of a language."""
    return re.findall(rf"^```{fence}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path, fence: str = "sh") -> Iterator[list[str]]:
    """Yield the arguments of each command of ours, comments and continued lines taken out."""
    for block in blocks(page, fence):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:3] == OURS:
                yield words[3:]


def small(arguments: list[str], places: dict[str, str]) -> list[str]:
    """Return the arguments on the data of a test, of 64 px, with two steps of training and no picture."""
    words = [re.sub(r"\b(DTD/images|DIR|NAME|FOLDER)\b", lambda m: places[m[1]], word) for word in arguments]
    if words[0] in {"check", "gallery", "--help", "--cfg"}:
        return words
    words = [re.sub(r"^(hydra\.sweeper\.trials)=.*", r"\1=2", word) for word in words]
    words = [word for word in words if not re.match(r"trainer=(gpu|mps|cpu)", word)]
    if "trainer=ddp" in words:  # another process would draw all of the demo
        tree = ["data=mvtec", f"data.root={places['DIR']}", f"data.category={places['NAME']}"]
        words = [word for word in words if word != "data=demo"] + tree
    given = {word.partition("=")[0] for word in words}
    if not {"trainer", "trainer.max_steps"} & given:
        words.append("trainer=debug")
    extra = {"evaluation.overlays": "0", "evaluation.bootstrap": "10", "data.image_size": "64"}
    extra |= {"seed": "0"} if "experiment" in given else {}
    return [*words, *(f"{key}={value}" for key, value in extra.items() if key not in given)]


def first_cell(arguments: list[str]) -> list[str]:
    """Return the first job of a sweep: each key with the first of its values."""
    return [_cut(word, 1) if "-m" in arguments else word for word in arguments if word != "-m"]


def two_cells(arguments: list[str]) -> list[str]:
    """Return a sweep with two values of its last key that has several, and one of each other."""
    if "-m" not in arguments:
        return arguments
    swept = [word for word in arguments if _cut(word, 1) != word]
    return [_cut(word, 2 if word in swept[-1:] else 1) for word in arguments]


def _cut(word: str, values: int) -> str:
    """Cut at a comma outside brackets, after so many values."""
    depth = 0
    for position, letter in enumerate(word):
        depth += (letter in "[{(") - (letter in "]})")
        values -= letter == "," and not depth
        if not values:
            return word[:position]
    return word


def photographs(root: Path) -> dict[str, str]:
    """Write what the commands speak of; return what stands for their placeholders.

    DIR holds ``good``, ``dent``, ``scratch`` and ``masks``, and beside them the same as category NAME in
    MVTec AD's layout; DTD/images holds two textures.
    """
    top = root / "photographs"
    for category in (top, top / "nut"):
        train = "good" if category == top else "train/good"
        for number in range(8):
            write_png(category / train / f"{number:03d}.png", normal_image((72, 96), number))
        for number in range(3):
            good = top / "nut" / "test" / "good" / f"{number:03d}.png"
            write_png(good, normal_image((72, 96), 20 + number))
        for kind, defect in enumerate(("dent", "scratch")):
            for number in range(3):
                image = normal_image((72, 96), 30 + 10 * kind + number)
                mask = image[..., 0] * 0
                mask[20:40, 30 : 50 + 10 * kind] = 255
                image[mask > 0] = 255 * kind
                test = category / (defect if category == top else f"test/{defect}")
                masks = category / ("masks" if category == top else "ground_truth") / defect
                write_png(test / f"{number:03d}.png", image)
                write_png(masks / f"{number:03d}_mask.png", mask)
    for number in range(2):
        write_png(root / "textures" / "banded" / f"{number}.png", normal_image((64, 64), 50 + number))
    places = {"DIR": top, "DTD/images": root / "textures", "FOLDER": root / "elsewhere"}
    return {"NAME": "nut"} | {name: str(path) for name, path in places.items()}
