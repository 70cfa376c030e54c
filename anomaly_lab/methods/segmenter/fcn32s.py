"""FCN-32s: Long, Shelhamer, Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015."""

from typing import Annotated, final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, pad

from anomaly_lab.layers.blocks import Float32Conv2d
from anomaly_lab.methods.segmenter.network import Dropout, SegmentationNetwork, check_sizes, initialise
from anomaly_lab.methods.segmenter.vgg import PUBLISHED, VggEncoder, check_weights, load
from anomaly_lab.types import PRETRAINED

PUBLISHED_HIDDEN = 4096
STRIDE = 32
# As the authors' network has it: the first convolution adds 100 pixels of zeros to each side, of which ours
# has one by itself, and the enlarged logits begin 19 pixels before the image.
PADDING = 99
OFFSET = 19


@final
class FCN32s(SegmentationNetwork):
    """VGG-16 whose classifier slides over the image; its logits, a 32nd of the sides, are enlarged.

    At width 64 and 4096 hidden channels 134,264,641 parameters are trained (134,268,738 with two classes);
    the enlargement is fixed.

    Args:
        width: channels of VGG-16's first level; 64 is the paper's.
        hidden: channels of the two layers of the classifier; 4096 in the paper.
        dropout: after each of them; 0.5 in the paper.
        weights: of VGG-16 with its classifier: ``random``, ``imagenet`` (downloaded when training starts) or
            a file of timm's vgg16.
    """

    kernel: Tensor  # (1, 1, 64, 64) float32: bilinear
    stride = STRIDE

    def __init__(self, width: int, hidden: int, dropout: float, weights: Annotated[str, PRETRAINED]) -> None:
        super().__init__()
        check_sizes(1, dropout, width=width, hidden=hidden)
        check_weights(weights, width=(width, PUBLISHED), hidden=(hidden, PUBLISHED_HIDDEN))
        self.encoder = VggEncoder(width, batch_norm=False)
        self.fc6 = nn.Conv2d(self.encoder.widths[-1], hidden, 7)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.dropout = Dropout(dropout)
        self.score = Float32Conv2d(hidden, 1, 1)
        self.apply(initialise)
        nn.init.zeros_(self.score.weight)
        ramp = 1 - (torch.arange(2 * STRIDE) - (STRIDE - 0.5)).abs() / STRIDE
        self.register_buffer("kernel", (ramp[:, None] * ramp)[None, None], persistent=False)
        self.weights = weights

    def forward(self, image: Tensor) -> Tensor:
        """Return the (B, 1, H, W) float32 logits."""
        x = self.encoder(pad(image, (PADDING,) * 4))
        x = self.dropout(self.fc6(x).relu())
        x = self.dropout(self.fc7(x).relu())
        logits = self.score(x)
        with torch.autocast(image.device.type, enabled=False):
            enlarged = conv_transpose2d(logits, self.kernel, stride=STRIDE)
        height, width = image.shape[2:]
        return enlarged[..., OFFSET : OFFSET + height, OFFSET : OFFSET + width]

    def load_pretrained(self) -> None:
        """Give all but the last layer VGG-16's weights."""
        load([self.encoder, self.fc6, self.fc7], "vgg16", self.weights, ("features.", "pre_logits."))
