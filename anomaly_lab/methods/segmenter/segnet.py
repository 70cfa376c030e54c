"""SegNet: Badrinarayanan, Kendall, Cipolla, IEEE Trans. PAMI 39(12), 2017.

"SegNet: A deep convolutional encoder-decoder architecture for image segmentation".
"""

from typing import Annotated, final

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from anomaly_lab.layers.blocks import Float32Conv2d
from anomaly_lab.methods.segmenter.network import SegmentationNetwork, check_sizes, initialise
from anomaly_lab.methods.segmenter.vgg import DEPTHS, PUBLISHED, VggEncoder, check_weights, level, load
from anomaly_lab.types import PRETRAINED


@final
class SegNet(SegmentationNetwork):
    """VGG-16's convolutions with batch norms, and their mirror, which unpools to where the maxima were.

    Sides are multiples of 32. At width 64 it has 29,443,585 parameters.

    Args:
        width: channels of the first level; 64 is the paper's.
        weights: of the encoder: ``random``, ``imagenet`` (downloaded when training starts) or a file of
            timm's vgg16_bn.
    """

    stride = 32

    def __init__(self, width: int, weights: Annotated[str, PRETRAINED]) -> None:
        super().__init__()
        check_sizes(1, 0.0, width=width)
        check_weights(weights, width=(width, PUBLISHED))
        self.encoder = VggEncoder(width, batch_norm=True)
        widths = self.encoder.widths
        # The thirteenth convolution of the decoder gives the logits; it has neither norm nor ReLU.
        steps = zip(widths[::-1], [*widths[-2::-1], width], [*DEPTHS[:0:-1], DEPTHS[0] - 1], strict=True)
        self.decoder = nn.ModuleList(
            [level(before, before, after, depth, batch_norm=True) for before, after, depth in steps]
        )
        self.out = Float32Conv2d(width, 1, 3, padding=1)
        self.apply(initialise)
        self.weights = weights

    def forward(self, image: Tensor) -> Tensor:
        """Return the (B, 1, H, W) float32 logits."""
        x = image
        places: list[Tensor] = []
        for convolved in self.encoder.levels:
            x, where = max_pool2d(convolved(x), 2, return_indices=True)
            places.append(where)
        for convolved in self.decoder:
            x = convolved(unpooled(x, places.pop()))
        logits: Tensor = self.out(x)
        return logits

    def load_pretrained(self) -> None:
        """Give the encoder VGG-16's weights."""
        load([self.encoder], "vgg16_bn", self.weights, ("features.",))


def unpooled(x: Tensor, places: Tensor) -> Tensor:
    """Return (B, C, 2 h, 2 w) maps of 0 but for the (B, C, h, w) values, each at its place in its plane.

    It is `torch.nn.functional.max_unpool2d`, whose gradient CUDA adds up in no fixed order and which ONNX
    lacks.
    """
    batch, channels, height, width = x.shape
    empty = x.new_zeros(batch, channels, 4 * height * width)
    placed = empty.scatter(2, places.flatten(2), x.flatten(2))
    return placed.view(batch, channels, 2 * height, 2 * width)
