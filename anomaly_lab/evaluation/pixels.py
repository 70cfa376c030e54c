"""Which pixels of a map are measured: those that show the photograph, at the network's or its own size."""

from collections.abc import Iterable

import numpy as np

from anomaly_lab.data.decoding import Split
from anomaly_lab.data.geometry import resize_mask, restore_map
from anomaly_lab.data.images import read_mask
from anomaly_lab.evaluation.metrics.curves import Curves
from anomaly_lab.evaluation.settings import EvaluationSettings


def add_maps(
    state: Curves,
    split: Split,
    maps: Iterable[tuple[int, np.ndarray]],
    how: EvaluationSettings,
) -> None:
    """Add the pixels of maps to a state; padding and what a crop cut away count in no metric.

    Args:
        state: gets them.
        split: that the maps are of.
        maps: the row of each, and its (H, W) float32 values at the network's size.
        how: at ``resolution=original`` maps are enlarged to the photographs; there, and where masks are
            resized in another way than for training, the masks are read again.
    """
    for row, anomaly_map in maps:
        placement = split.placements[row]
        inside = placement.target.slices
        if how.resolution == "original":
            state.update_map(restore_map(anomaly_map, placement), _mask(split, row)[placement.source.slices])
        elif how.mask_resize == "nearest":
            state.update_map(anomaly_map[inside], split.masks[row][inside])
        else:
            mask = resize_mask(_mask(split, row), placement, anomaly_map.shape, how.mask_resize)
            state.update_map(anomaly_map[inside], mask[inside])


def _mask(split: Split, row: int) -> np.ndarray:
    """Return a record's mask, (h, w) bool, at the size of its photograph."""
    file = split.records[row].mask
    size = split.sizes[row]
    return np.zeros(size, bool) if file is None else read_mask(file, size)
