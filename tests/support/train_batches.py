"""Training batches outside any run, for methods that are handed normal images alone."""

import torch
from torch import Tensor

from anomaly_lab.types import TrainBatch


class Unlabelled(TrainBatch):
    """A batch whose label nobody may read."""

    @property
    def label(self) -> Tensor:
        """AssertionError."""
        raise AssertionError("only a supervised method may read a batch's label")


def unlabelled(image: Tensor, clean: Tensor | None = None, mask: Tensor | None = None) -> TrainBatch:
    """Return a batch of (B, 3, H, W) images; all as they were, and masks empty, if not given."""
    clean = image if clean is None else clean
    mask = torch.zeros(len(image), *image.shape[2:], dtype=torch.bool) if mask is None else mask
    return Unlabelled(image, clean, mask, torch.zeros(len(image), dtype=torch.bool, device=image.device))


def inverted(clean: Tensor, mask: Tensor) -> TrainBatch:
    """Return a batch of (B, 3, H, W) images whose pixels in the (B, H, W) mask are inverted."""
    return unlabelled(torch.where(mask[:, None], 1 - clean, clean), clean, mask)
