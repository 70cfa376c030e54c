"""TensorFlow's padding ("same") without a padded copy of the image."""

from typing import final

from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad


@final
class SameConv(nn.Module):
    """A convolution of stride 2 that pads as TensorFlow does: an even side gets one pixel more at its end.

    timm copies the image into a larger one. Here the kernel gets a row and a column of zeros in front, which
    is small; with them the padding that the even side wants is the same at both ends. Parameters keep names
    and shapes.

    Args:
        convolution: has stride 2, an odd kernel of at least 3, no dilation.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = convolution.weight
        self.bias = convolution.bias
        self.groups = convolution.groups

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, D, ceil(H / 2), ceil(W / 2)) of (B, C, H, W)."""
        kernel = self.weight.shape[2:]
        sides = image.shape[2:]
        padding = [kernel[0] // 2 + sides[0] % 2, kernel[1] // 2 + sides[1] % 2]
        # Made anew, as weights may be loaded at any time: a kernel is a thousandth of an image.
        return conv2d(image, pad(self.weight, (1, 0, 1, 0)), self.bias, 2, padding, groups=self.groups)


def unpadded(network: nn.Module) -> nn.Module:
    """Return the network with each such convolution of timm's replaced, in place."""
    for owner in list(network.modules()):
        for name, part in owner.named_children():
            if isinstance(part, Conv2dSame) and _fits(part):
                setattr(owner, name, SameConv(part))
    return network


def _fits(convolution: nn.Conv2d) -> bool:
    odd = all(side % 2 and side > 1 for side in convolution.kernel_size)
    return odd and convolution.stride == (2, 2) and convolution.dilation == (1, 1)
