"""For trees without folders of masks or a published split: masks beside their images, and a draw of the test set."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from anomaly_lab.errors import ConfigError


def beside(files: Sequence[Path], ending: str, problems: list[str]) -> dict[Path, Path | None]:
    """Pair each image with the mask STEM + ``ending`` in the same folder; every file of that ending is a mask.

    A mask that fits not one image goes to ``problems``; an image without a mask has None.
    """
    masks = {file.with_name(file.name.removesuffix(ending)): file for file in files if file.name.endswith(ending)}
    found = [file for file in files if not file.name.endswith(ending)]
    stems = Counter(file.with_suffix("") for file in found)
    for stem, mask in masks.items():
        if stems[stem] != 1:
            way_out = "one image takes one mask, so add, rename or remove a file"
            problems.append(f"{mask}: is a mask of {stems[stem]} images named {stem.name}; {way_out}")
    return {file: masks.get(file.with_suffix("")) for file in found}


def drawn(names: Iterable[str], test_share: float) -> set[str]:
    """Return the share of the names, at least one, whose SHA-256 is smallest: the same for every seed and machine."""
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    if not 0 < test_share < 1:
        raise ConfigError(f"data.test_share: {test_share} leaves no good images for testing; give a share in (0, 1)")
    return set(ranked[: max(1, round(test_share * len(ranked)))])
