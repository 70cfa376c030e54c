"""U-Net and U-Net++, each with the same pairs of convolutions at five levels.

U-Net: Ronneberger, Fischer, Brox, "U-Net: Convolutional networks for biomedical image segmentation", MICCAI
2015. U-Net++: Zhou, Siddiquee, Tajbakhsh, Liang, "UNet++: A nested U-Net architecture for medical image
segmentation", DLMIA 2018.
"""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from anomaly_lab.layers.blocks import Float32Conv2d
from anomaly_lab.methods.segmenter.network import (
    Dropout,
    SegmentationNetwork,
    check_sizes,
    convolutions,
    initialise,
)

LEVELS = 5


@final
class UNet(SegmentationNetwork):
    """An encoder and a decoder of five levels that are joined at each; sides multiples of 16.

    At width 64 without batch norms it has 31,031,745 parameters (31,031,810 with two classes), at width 32
    7,760,097. Convolutions are padded, so the map has the image's size.

    Args:
        width: channels of the first level, doubled at each further one; 64 is the paper's.
        batch_norm: after each convolution of 3x3; the paper has none.
        dropout: at the end of the two deepest levels of the encoder.
    """

    stride = 16

    def __init__(self, width: int, batch_norm: bool, dropout: float) -> None:  # noqa: FBT001 - a key
        super().__init__()
        check_sizes(1, dropout, width=width)
        widths = [width * 2**level for level in range(LEVELS)]
        pairs = list(zip([3, *widths], widths, strict=False))
        self.encoder = nn.ModuleList(
            [convolutions(a, b, batch_norm=batch_norm, dropout=0.0) for a, b in pairs]
        )
        self.ups = nn.ModuleList([nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs[:0:-1]])
        self.decoder = nn.ModuleList(
            [convolutions(b, a, batch_norm=batch_norm, dropout=0.0) for a, b in pairs[:0:-1]]
        )
        self.dropout = Dropout(dropout)
        self.out = Float32Conv2d(width, 1, 1)
        self.apply(initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Return the (B, 1, H, W) float32 logits."""
        skips: list[Tensor] = []
        for depth, block in enumerate(self.encoder):
            x = block(max_pool2d(skips[-1], 2) if skips else image)
            skips.append(self.dropout(x) if depth >= LEVELS - 2 else x)
        x = skips.pop()
        for up, block in zip(self.ups, self.decoder, strict=True):
            x = block(torch.cat([skips.pop(), up(x)], dim=1))
        logits: Tensor = self.out(x)
        return logits

    def load_pretrained(self) -> None:
        """There are no weights to start from."""


@final
class UNetPlusPlus(SegmentationNetwork):
    """U-Nets of all depths in one, with dense skip connections; sides multiples of 16.

    At width 32 without batch norms it has 9,042,177 parameters with one head, 99 more with four.

    Args:
        width: channels of the first level, doubled at each further one; 32 is the paper's.
        batch_norm: after each convolution of 3x3; the authors' code has none.
        dropout: after each of them; 0.5 in the authors' code.
        deep_supervision: each of the four U-Nets has a head; if not, the deepest one alone.
    """

    stride = 16

    def __init__(
        self,
        width: int,
        batch_norm: bool,  # noqa: FBT001 - a key
        dropout: float,
        deep_supervision: bool,  # noqa: FBT001 - a row of the paper's table
    ) -> None:
        super().__init__()
        check_sizes(1, dropout, width=width)
        widths = [width * 2**level for level in range(LEVELS)]
        # nodes[j][i] is the paper's X^(i, j): j steps up to level i, joined with the j nodes before it there.
        first = [
            convolutions(a, b, batch_norm=batch_norm, dropout=dropout)
            for a, b in zip([3, *widths], widths, strict=False)
        ]
        self.nodes = nn.ModuleList([nn.ModuleList(first)])
        self.ups = nn.ModuleList()
        for step in range(1, LEVELS):
            here = widths[: LEVELS - step]
            self.ups.append(nn.ModuleList([nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in here]))
            joined = [convolutions((step + 1) * w, w, batch_norm=batch_norm, dropout=dropout) for w in here]
            self.nodes.append(nn.ModuleList(joined))
        self.heads = nn.ModuleList(
            [Float32Conv2d(width, 1, 1) for _ in range(LEVELS - 1 if deep_supervision else 1)]
        )
        self.apply(initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Return the (B, heads, H, W) float32 logits."""
        levels: list[list[Tensor]] = []
        for block in self.nodes[0].children():
            levels.append([block(max_pool2d(levels[-1][0], 2) if levels else image)])
        for ups, blocks in zip(self.ups, list(self.nodes)[1:], strict=True):
            for depth, (up, block) in enumerate(zip(ups.children(), blocks.children(), strict=True)):
                below = up(levels[depth + 1][len(levels[depth]) - 1])
                levels[depth].append(block(torch.cat([*levels[depth], below], dim=1)))
        ends = levels[0][-len(self.heads) :]
        return torch.cat([head(end) for head, end in zip(self.heads, ends, strict=True)], dim=1)

    def load_pretrained(self) -> None:
        """There are no weights to start from."""
