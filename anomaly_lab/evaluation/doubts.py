"""What makes the numbers of a run doubtful, for a person to look at; nothing of a run depends on it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Self, final

import numpy as np
from scipy.stats import binomtest

from anomaly_lab.types import ImageRecord

UNLIKELY = 0.01  # how seldom chance alone would do it
SAME = 0.99  # share of the variance of all maps that their mean explains
FEWEST = 10  # images to train on
OFFSET = 5.0  # grey levels, of 255


class Observed(NamedTuple):
    """What is known of a test beside its scores."""

    sameness: float | None = None  # share of the maps' variance that one map for all images explains
    training_grey: np.ndarray = np.zeros(0)  # (N,) mean grey levels of the training images, 0 to 255
    normal_grey: np.ndarray = np.zeros(0)  # (M,) of the normal test images
    of_method: tuple[str, ...] = ()  # what the method itself says


def shown(doubts: Iterable[str]) -> list[str]:
    """Return the lines as a person reads them, in a log and of a check."""
    return [f"Look at this: {line}" for line in doubts]


def of_scores(scores: np.ndarray, labels: np.ndarray, metrics: Mapping[str, float]) -> Iterator[str]:
    """Yield what is doubtful of (N,) scores, their (N,) bool labels and the image metrics made of them."""
    low, high = (metrics.get(f"image_auroc_{end}", np.nan) for end in ("low", "high"))
    if high < 0.5:
        yield (
            f"image AUROC {metrics['image_auroc']:.3f}, with 95 % certainty below .5: defective images score "
            "below normal ones; were the normal test images taken as the training images were?"
        )
    if low == high == 1:
        yield (
            f"image AUROC 1 to 1 is no interval: {(~labels).sum()} normal and {labels.sum()} defective "
            "images are all told apart, so resampling them cannot show how far others would fall below"
        )
    if len(scores) > 1 and not np.ptp(scores):
        yield f"all {len(scores)} test images have the score {scores[0]:g}: nothing is told apart"


def of_threshold(held_out: int, target: float, normals: int, metrics: Mapping[str, float]) -> Iterator[str]:
    """Yield what is doubtful of a threshold from so many held-out images, tried on so many normal ones."""
    if not held_out:
        return
    least = 1 / (held_out + 1)
    if least > target:
        yield (
            f"threshold from {held_out} held-out images: about {100 * least:.0f} % of good parts will lie "
            f"above it, not {100 * target:.0f}; raise data.holdout"
        )
    alarms = metrics.get("image_fpr_at_threshold")
    if alarms is None:
        return
    chance = binomtest(round(alarms * normals), normals, max(target, least), alternative="greater").pvalue
    if chance < UNLIKELY:
        yield (
            f"false alarms {alarms:.2f} on the normal test images where {target:.2f} were aimed at: they are "
            "not like the held-out ones"
        )


def of_files(records: Sequence[ImageRecord], training: int) -> Iterator[str]:
    """Yield what is doubtful of the test images' files, and of how many images there were to train on."""
    good, bad = (
        {record.image.suffix.lower() for record in records if record.label is label}
        for label in (False, True)
    )
    if good and bad and not good & bad:
        kinds = [", ".join(sorted(suffixes)) for suffixes in (good, bad)]
        yield (
            f"normal test images are {kinds[0]} files, defective ones {kinds[1]}: how they were kept may be "
            "what is told apart"
        )
    if 0 < training < FEWEST:
        yield f"only {training} images to train on"


def of_pictures(seen: Observed) -> Iterator[str]:
    """Yield what is doubtful of maps and images, and what the method itself says."""
    if seen.sameness is not None and seen.sameness > SAME:
        yield f"the anomaly map is nearly the same in every picture ({seen.sameness:.1%} of it)"
    if min(len(seen.training_grey), len(seen.normal_grey)) > 1:
        offset = seen.normal_grey.mean() - seen.training_grey.mean()
        if abs(offset) > max(OFFSET, seen.training_grey.std(ddof=1)):
            side = "brighter" if offset > 0 else "darker"
            yield (
                f"normal test images are {abs(offset):.0f} grey levels {side} than training images: what is "
                "measured may be the light"
            )
    yield from seen.of_method


@final
class Sameness:
    """How much of all maps is one map, from sums alone: memory does not grow with their number."""

    def __init__(self) -> None:
        self.count = 0
        self.sums = self.squares = np.zeros(0)

    def update(self, maps: np.ndarray) -> None:
        """Take in (B, H, W) maps."""
        maps = maps.astype(np.float64)
        if not self.count:
            self.first = maps.mean()  # what is far from 0 would cancel
            self.sums = np.zeros(maps.shape[1:])
            self.squares = np.zeros(maps.shape[1:])
        maps -= self.first
        self.count += len(maps)
        self.sums += maps.sum(axis=0)
        self.squares += np.square(maps).sum(axis=0)

    def merge(self, other: Self) -> None:
        """Add what another has taken in."""
        if not other.count:
            return
        if not self.count:
            self.first = other.first
            self.sums = np.zeros_like(other.sums)
            self.squares = np.zeros_like(other.sums)
        apart = other.first - self.first
        self.squares += other.squares + 2 * apart * other.sums + other.count * apart**2
        self.sums += other.sums + other.count * apart
        self.count += other.count

    def compute(self) -> float | None:
        """Return the share of all variance that the mean map has; None of less than two maps."""
        if self.count < 2:
            return None
        mean = self.sums / self.count
        total = self.squares.mean() / self.count - mean.mean() ** 2
        return float(mean.var() / total) if total > 0 else 1.0
