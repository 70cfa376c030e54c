"""Parts of convolutional networks that more than one method uses."""

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, interpolate

from anomaly_lab.ranks import here


def conv(before: int, after: int, kernel: int) -> nn.Sequential:
    """One convolution without bias, batch norm, ReLU."""
    weights = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(weights, BatchNormOfAny(after), nn.ReLU(inplace=True))


def linears(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with bias for (B, C, 1, 1) values, all with a ReLU and all but the last with batch norm.

    They are convolutions of 1 x 1, whose batch norm also takes a batch of one.
    """
    steps: list[nn.Module] = []
    for place, (before, after) in enumerate(pairwise(widths), 1):
        norm = [] if place == len(widths) - 1 else [BatchNormOfAny(after)]
        steps += [nn.Conv2d(before, after, 1), *norm, nn.ReLU(inplace=True)]
    return nn.Sequential(*steps)


@final
class Float32Conv2d(nn.Conv2d):
    """Stays in float32 under mixed precision: bf16 rounds the difference of image and reconstruction away."""

    def forward(self, x: Tensor) -> Tensor:
        """Return float32, of a convolution's shape."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


@final
class BatchNormOfAny(nn.BatchNorm2d):
    """Batch norm that also trains on one value per channel, which a batch of one pooled to 1 x 1 has.

    Its variance says nothing there, so that batch is normalised by the running statistics.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalised, same shape."""
        if self.training and x.numel() == x.shape[1] and here.images_of_batch(1) == 1:
            return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


@final
class NarrowBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that several threads of a CPU train in step where there are few channels.

    PyTorch's kernels for channels_last keep a row of sums per thread. Rows of fewer than 16 float32 share a
    line of the cache, for which the threads then wait; in the other layout each has its own channels. With
    one thread there is nothing to wait for, and the two copies would cost a fifth of a step.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalised, of the same shape and layout."""
        if not (self.training and _rows_share_a_line(x)):
            return super().forward(x)
        normed = super().forward(x.contiguous())
        if normed.requires_grad:  # its gradient comes in the layout of the copy
            normed.register_hook(lambda gradient: gradient.contiguous())  # type: ignore[no-untyped-call]
        return normed.contiguous(memory_format=torch.channels_last)


def _rows_share_a_line(x: Tensor) -> bool:
    few = x.device.type == "cpu" and x.shape[1] < 16 and torch.get_num_threads() > 1
    return few and x.is_contiguous(memory_format=torch.channels_last)


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a (B, C, h, w) map at another size.

    It is averaged along an axis that shrinks, bilinear along one that grows.
    """
    shape = (x.shape[2], x.shape[3])
    smaller = (min(shape[0], size[0]), min(shape[1], size[1]))
    if smaller != shape:
        x = adaptive_avg_pool2d(x, smaller)
    return x if smaller == size else interpolate(x, size, mode="bilinear")
