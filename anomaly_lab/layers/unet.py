"""DRAEM's two networks (Zavrtanik, Kristan, Skočaj, ICCV 2021), layer by layer as in the authors' code."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from anomaly_lab.layers.blocks import Float32Conv2d, NarrowBatchNorm2d


def double_conv(before: int, middle: int, after: int, first: type[nn.Conv2d] = nn.Conv2d) -> nn.Sequential:
    """Two 3x3 convolutions with bias, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for kind, a, b in ((first, before, middle), (nn.Conv2d, middle, after)):
        layers += [kind(a, b, 3, padding=1), NarrowBatchNorm2d(b), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def up_conv(before: int, after: int) -> nn.Sequential:
    """Bilinear x2 (corners aligned), then one 3x3 convolution with batch norm and ReLU."""
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    return nn.Sequential(
        up, nn.Conv2d(before, after, 3, padding=1), NarrowBatchNorm2d(after), nn.ReLU(inplace=True)
    )


@final
class ReconstructiveNetwork(nn.Module):
    """An autoencoder without skip connections; (B, 3, H, W) to (B, 3, H, W), H and W multiples of 16.

    Width 128 is the paper's and has 69.05 M parameters. There is no output activation.

    Attributes:
        widths: channels of the nine levels, five of the encoder and four of the decoder.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.widths = [w, 2 * w, 4 * w, 8 * w, 8 * w, 4 * w, 2 * w, w, w]
        self.encoder = nn.ModuleList(
            [
                double_conv(a, b, b)
                for a, b in ((3, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w), (8 * w, 8 * w))
            ]
        )
        sides = ((8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w), (w, w))
        self.ups = nn.ModuleList([up_conv(a, a) for a, _ in sides])
        self.decoder = nn.ModuleList([double_conv(a, a, b) for a, b in sides])
        self.out = Float32Conv2d(w, 3, 3, padding=1)

    def forward(self, image: Tensor, wanted: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """Return the reconstruction and the outputs of the wanted levels, from 1 to 9.

        The reconstruction is near [0, 1] but unbounded.
        """
        x = image
        kept = dict[int, Tensor]()
        for number, block in enumerate(self.encoder, 1):
            x = block(x if number == 1 else nn.functional.max_pool2d(x, 2))
            kept |= {number: x} if number in wanted else {}
        for number, (up, block) in enumerate(zip(self.ups, self.decoder, strict=True), 6):
            x = block(up(x))
            kept |= {number: x} if number in wanted else {}
        return self.out(x), [kept[number] for number in wanted]


@final
class DiscriminativeNetwork(nn.Module):
    """A U-Net with six levels; (B, channels, H, W) to (B, 2, H, W) float32 logits, H and W multiples of 32.

    Width 64 with 6 channels is the paper's and has 28.37 M parameters.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        w = width
        sides = ((channels, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w), (8 * w, 8 * w), (8 * w, 8 * w))
        kinds = [Float32Conv2d] + [nn.Conv2d] * 5
        self.encoder = nn.ModuleList(
            [double_conv(a, b, b, kind) for (a, b), kind in zip(sides, kinds, strict=True)]
        )
        steps = (
            (8 * w, 8 * w, 8 * w),
            (8 * w, 4 * w, 8 * w),
            (4 * w, 2 * w, 4 * w),
            (2 * w, w, 2 * w),
            (w, w, w),
        )
        self.ups = nn.ModuleList([up_conv(a, b) for a, b, _ in steps])
        self.decoder = nn.ModuleList([double_conv(b + skip, b, b) for _, b, skip in steps])
        self.out = Float32Conv2d(w, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of normal and anomalous; the last layer runs in float32 under mixed precision."""
        skips = [self.encoder[0](x)]
        for block in self.encoder[1:]:
            skips.append(block(nn.functional.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for up, block in zip(self.ups, self.decoder, strict=True):
            x = block(torch.cat([up(x), skips.pop()], dim=1))
        logits: Tensor = self.out(x)
        return logits


def fast_layout(width: int) -> torch.memory_format:
    """Return the layout in memory that trains fastest.

    On a CPU channels_last wins at width 8 and loses from 16 on.
    """
    return torch.channels_last if width < 16 or torch.cuda.is_available() else torch.contiguous_format


def initialise(module: nn.Module) -> None:
    """Weights as in DRAEM's code: convolutions N(0, 0.02), batch norms N(1, 0.02) with zero bias."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
