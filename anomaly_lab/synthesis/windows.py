"""Windows of an image, for patches that are cut and pasted."""

from collections.abc import Sequence

import numpy as np

Window = tuple[slice, slice]


def random_window(sides: Sequence[int], within: Sequence[int], rng: np.random.Generator) -> Window:
    """Return a window of (height, width) somewhere in (H, W), each place as likely as any other."""
    top, left = (int(rng.integers(whole - own + 1)) for own, whole in zip(sides[:2], within[:2], strict=True))
    return slice(top, top + sides[0]), slice(left, left + sides[1])
