"""Anomaly maps of a reconstruction alone: how little it resembles its image, pixel by pixel.

Both run in float32 whatever the precision of the networks, and look at one image at a time.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad

from anomaly_lab.layers.losses import ssim

SCALES = 4  # of the pyramid, each half as large as the one before
GMS_CONSTANT = 0.0026  # of gradients of values in [0, 1]: 170 / 255^2


def ssim_map(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Return 1 - SSIM, the mean over the channels, (B, H, W) float32 in [0, 2].

    The window is that of `ssim`, the range of values 1: a guess would look at the whole batch.
    """
    return 1 - ssim(reconstruction, image, "unit").mean(1)


def msgms_map(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Return 1 - the multi-scale gradient magnitude similarity, (B, H, W) float32 in [0, 1].

    Both are (B, 3, H, W) in about [0, 1], H and W multiples of 8. At each of four scales, halved by means of
    2 x 2 pixels, the similarity (2 g h + c) / (g^2 + h^2 + c) of the two gradients' magnitudes is enlarged to
    the image's size, bilinear, and averaged (Zavrtanik, Kristan, Skočaj, Pattern Recognition 2021, section
    3.2; Xue et al., IEEE TIP 2014: Prewitt's filters and c). The channels' mean is compared, and the border
    is repeated (ours).
    """
    x = reconstruction.float().mean(1, keepdim=True)
    y = image.float().mean(1, keepdim=True)
    size = (x.shape[2], x.shape[3])
    similarity = torch.zeros_like(x)
    with torch.autocast(x.device.type, enabled=False):
        for scale in range(SCALES):
            if scale:
                x = avg_pool2d(x, 2)
                y = avg_pool2d(y, 2)
            one = gradient_magnitude(x)
            other = gradient_magnitude(y)
            likeness = (2 * one * other + GMS_CONSTANT) / (one.square() + other.square() + GMS_CONSTANT)
            similarity = similarity + interpolate(likeness, size, mode="bilinear") / SCALES
    return 1 - similarity[:, 0]


def gradient_magnitude(grey: Tensor) -> Tensor:
    """Return the length of the gradient by Prewitt's filters, (B, 1, H, W) float32 of (B, 1, H, W)."""
    across = grey.new_tensor([[1.0, 0.0, -1.0]] * 3) / 3
    filters = torch.stack([across, across.T])[:, None]
    return conv2d(pad(grey, (1, 1, 1, 1), mode="replicate"), filters).square().sum(1, keepdim=True).sqrt()
