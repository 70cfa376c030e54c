"""HIT-MiLF's hierarchical transformation, and the poisoned copies it shall make a detector proof against.

Farady, Kuo, Ng, Lin, Sensors 2023, 23(2), 988. Its body could not be read: levels of transformations that
imitate non-ideal captures are the paper's (abstract); the operations, their ranges and the severities are
ours (docs/methods/hit_milf.md, notes 5 and 6).
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, final, get_args

import cv2
import numpy as np

from anomaly_lab.data.augment.base import Augmentation
from anomaly_lab.errors import ConfigError

Family = Literal["geometry", "photometry", "degradation"]
FAMILIES: tuple[Family, ...] = get_args(Family)
DEEPEST = 3  # level of the tree
WORST = 3  # severity
AT_END = 2  # severity at which a strength is at an end of its training range
LEVELS = np.arange(256.0)


def warped(image: np.ndarray, degrees: float, shift: tuple[float, float], scale: float) -> np.ndarray:
    """Turn and scale about the centre, then shift by (right, down) shares of the sides.

    It is bilinear and repeats the edges.
    """
    height, width = image.shape[:2]
    move = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
    move[:, 2] += shift[0] * width, shift[1] * height
    return cv2.warpAffine(
        image, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def flipped(image: np.ndarray) -> np.ndarray:
    """Swap left and right."""
    return np.ascontiguousarray(image[:, ::-1])


def brightened(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply every value."""
    return cv2.LUT(image, _uint8(LEVELS * factor))


def contrasted(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply every value's distance to the mean of the image."""
    return cv2.LUT(image, _uint8(image.mean() + (LEVELS - image.mean()) * factor))


def gamma_corrected(image: np.ndarray, gamma: float) -> np.ndarray:
    """Raise every value, as a share of 255, to a power."""
    return cv2.LUT(image, _uint8(255 * (LEVELS / 255) ** gamma))


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve with a Gaussian of ``sigma`` pixels, edges repeated."""
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def noisy(image: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Add Gaussian noise of ``sigma`` times 255, each value its own; a grey image stays grey."""
    grey = (image == image[..., :1]).all()
    noise = rng.standard_normal((*image.shape[:2], 1 if grey else 3), np.float32)
    return _uint8(image + 255 * sigma * noise)


def compressed(image: np.ndarray, quality: float) -> np.ndarray:
    """Write and read as JPEG."""
    written = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, round(quality)])[1]
    return np.ascontiguousarray(np.asarray(cv2.imdecode(written, cv2.IMREAD_COLOR))[..., ::-1])


def lit(image: np.ndarray, rng: np.random.Generator, factor: float) -> np.ndarray:
    """Multiply an ellipse by a factor, below 1 a shadow, above it a highlight, without any edge.

    Its centre is drawn in the middle half of both sides, its semi-axes from 0.15 to 0.45 of the shorter side,
    its angle from all; away from the centre the factor returns to 1 as exp(-d^2) of the elliptical distance
    d.
    """
    height, width = image.shape[:2]
    right, down = rng.uniform(0.25, 0.75, 2)
    x = np.arange(width) - right * width
    y = np.arange(height)[:, None] - down * height
    first, second = rng.uniform(0.15, 0.45, 2) * min(height, width)
    angle = rng.uniform(0, np.pi)
    cos = np.cos(angle)
    sin = np.sin(angle)
    square = ((cos * x + sin * y) / first) ** 2 + ((cos * y - sin * x) / second) ** 2
    return _uint8(image * (1 + (factor - 1) * np.exp(-square))[..., None])


def _uint8(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


class Strength(NamedTuple):
    """A parameter of an operation, in training uniform in low..high.

    ``neutral`` changes nothing (JPEG: little).
    """

    low: float
    high: float
    neutral: float

    def worsened(self, severity: int, rng: np.random.Generator) -> float:
        """Return the strength halfway from neutral to an end, at the end, or half as far again beyond it.

        These are severities 1, 2 and 3. The end is drawn, or the farther one if neutral is outside.
        """
        far = max(self.low, self.high, key=lambda end: abs(end - self.neutral))
        ends = (self.low, self.high) if self.low < self.neutral < self.high else (far, far)
        return self.neutral + severity / AT_END * (ends[rng.integers(2)] - self.neutral)


class Operation(NamedTuple):
    """An operation of the tree."""

    # (image, rng, *strengths) -> image; (H, W, 3) uint8 both, the input untouched
    apply: Callable[..., np.ndarray]
    strengths: tuple[Strength, ...]


OPERATIONS: dict[Family, dict[str, Operation]] = {
    "geometry": {
        "rotation": Operation(
            lambda image, _, degrees: warped(image, degrees, (0, 0), 1), (Strength(-10, 10, 0),)
        ),
        "shift": Operation(
            lambda image, _, *shift: warped(image, 0, shift, 1), (Strength(-0.05, 0.05, 0),) * 2
        ),
        "scale": Operation(lambda image, _, scale: warped(image, 0, (0, 0), scale), (Strength(0.9, 1.1, 1),)),
    },
    "photometry": {
        "brightness": Operation(lambda image, _, factor: brightened(image, factor), (Strength(0.6, 1.4, 1),)),
        "contrast": Operation(lambda image, _, factor: contrasted(image, factor), (Strength(0.7, 1.3, 1),)),
        "gamma": Operation(lambda image, _, gamma: gamma_corrected(image, gamma), (Strength(0.7, 1.5, 1),)),
    },
    "degradation": {
        "blur": Operation(lambda image, _, sigma: blurred(image, sigma), (Strength(0.5, 2, 0),)),
        "noise": Operation(noisy, (Strength(0.01, 0.05, 0),)),
        "jpeg": Operation(lambda image, _, quality: compressed(image, quality), (Strength(40, 90, 100),)),
        "light": Operation(lit, (Strength(0.4, 1.6, 1),)),
    },
}
FLIP = Operation(lambda image, _: flipped(image), ())


@final
class HierarchicalTransformation(Augmentation):
    """Draws from a tree: level 0 is the image, level k the compositions of k different operations.

    Args:
        depth: the deepest level, 1 to 3.
        copies: an epoch has each image once untouched and so often transformed.
        families: whose operations are in the tree.
        flip: the horizontal flip is one of geometry's; not for parts whose handedness matters.
    """

    def __init__(self, depth: int, copies: int, families: Sequence[Family], flip: bool) -> None:  # noqa: FBT001
        if not 1 <= depth <= DEEPEST:
            raise ConfigError(f"data.augment.depth: {depth} is no level of the tree; give 1 to {DEEPEST}")
        if copies < 1:
            raise ConfigError(
                f"data.augment.copies: {copies}; give at least 1, or data.augment=null for none"
            )
        if not families or len(set(families)) < len(families) or not set(families) <= set(FAMILIES):
            shown = f"{list(families)}; give some of {', '.join(FAMILIES)}, each once"
            raise ConfigError(f"data.augment.families: {shown}")
        self.depth = depth
        self.copies = copies
        self.operations = [operation for family in families for operation in OPERATIONS[family].values()]
        self.operations += [FLIP] if flip and "geometry" in families else []

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a node of level 1 to ``depth``, each level as likely as another.

        Strengths are uniform in their ranges.
        """
        level = rng.integers(1, self.depth + 1)
        for index in rng.choice(len(self.operations), level, replace=False):
            operation = self.operations[index]
            image = operation.apply(image, rng, *(rng.uniform(s.low, s.high) for s in operation.strengths))
        return image


def poisoned(image: np.ndarray, family: Family, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Return a copy as from a non-ideal capture: by an operation of the family, drawn from all but the flip.

    Severity 1 is halfway from no change to an end of the training range, 2 is at that end, 3 is half as far
    again beyond it, where no training copy is. The side is drawn: rotation 5, 10, 15 degrees; shift 2.5, 5,
    7.5 % of both sides; scale 1 +- 0.05, 0.1, 0.15; brightness 1 +- 0.2, 0.4, 0.6; contrast 1 +- 0.15, 0.3,
    0.45; gamma 0.85, 0.7, 0.55 or 1.25, 1.5, 1.75; blur of sigma 1, 2, 3; noise of 0.025, 0.05, 0.075; JPEG
    quality 70, 40, 10; shadow or highlight 1 +- 0.3, 0.6, 0.9. The same ``rng`` state gives the same
    operation, side and noise for every severity, so a higher one changes the image more.
    """
    operations = list(OPERATIONS[family].values())
    operation = operations[rng.integers(len(operations))]
    return operation.apply(image, rng, *[s.worsened(severity, rng) for s in operation.strengths])
