"""Which pixels of a map are measured: those that show the photograph, at the network's or its own size."""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from anomaly_lab.data.decoding import Split
from anomaly_lab.data.geometry import restore_map
from anomaly_lab.data.images import read_mask
from anomaly_lab.evaluation.metrics.curves import Curves


def add_maps(
    state: Curves,
    split: Split,
    maps: Iterable[tuple[int, np.ndarray]],
    resolution: Literal["network", "original"],
) -> None:
    """Add the pixels of maps to a state; padding and what a crop cut away count in no metric.

    Args:
        state: gets them.
        split: that the maps are of.
        maps: the row of each, and its (H, W) float32 values at the network's size.
        resolution: ``original`` enlarges them to the photographs and reads the masks of that size.
    """
    for row, anomaly_map in maps:
        placement = split.placements[row]
        if resolution == "network":
            inside = placement.target.slices
            state.update_map(anomaly_map[inside], split.masks[row][inside])
        else:
            file = split.records[row].mask
            size = split.sizes[row]
            mask = np.zeros(size, bool) if file is None else read_mask(file, size)
            state.update_map(restore_map(anomaly_map, placement), mask[placement.source.slices])
