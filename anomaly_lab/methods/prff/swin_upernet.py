"""PRFF-AD's discriminative network: Swin under a UPerNet head.

Swin: Liu et al., ICCV 2021; UPerNet: Xiao et al., ECCV 2018.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, final

import timm
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, pad

from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.blocks import Float32Conv2d, conv
from anomaly_lab.types import PRETRAINED

IMAGENET = "swin_base_patch4_window7_224"  # timm's name of the weights whose shapes the published widths have
POOLS = (1, 2, 3, 6)


@final
class SwinUPerNet(nn.Module):
    """A segmentation network; (B, channels, H, W) to (B, 2, H, W) float32 logits.

    The published sizes (Sensors 2023, 23, 8750, section 5.1.3) have 187.7 M parameters in the encoder, 86.8 M
    with the depths of Swin-B; the head has 33.2 M at 512 channels. Images that windows do not divide are
    padded first; timm would pad after it shifts, and windows would reach across the border.

    Args:
        channels: of the input.
        embed_dim: width of the first of four levels; each doubles it.
        depths: transformer blocks of each level.
        num_heads: attention heads of each level.
        window_size: side of an attention window, in tokens of 4 x 4 pixels at the first level.
        drop_path_rate: stochastic depth, rising to this.
        head_channels: width of the head.
        dropout: before the classifier.
        weights: ``random``, ``imagenet`` (downloaded when training starts) or a file of timm's weights; the
            first convolution is inflated to ``channels``.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        channels: int,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: int,
        drop_path_rate: float,
        head_channels: int,
        dropout: float,
        weights: Annotated[str, PRETRAINED],
    ) -> None:
        super().__init__()
        if (
            len(depths) != 4
            or len(num_heads) != 4
            or min(*depths, *num_heads, window_size, head_channels) < 1
        ):
            raise ConfigError(
                "model.swin_upernet: depths and num_heads have four entries each, and none is below 1"
            )
        if not (0 <= drop_path_rate < 1 and 0 <= dropout < 1) or embed_dim < 1:
            raise ConfigError(
                "model.swin_upernet: drop_path_rate and dropout lie in [0, 1), embed_dim is at least 1"
            )
        if weights not in {"random", "imagenet"} and not Path(weights).is_file():
            raise ConfigError(
                f"model.swin_upernet.weights: no file {weights}; give random, imagenet or a FILE"
            )
        if weights == "imagenet" and (embed_dim, *depths, *num_heads) != (128, 2, 2, 18, 2, 4, 8, 16, 32):
            raise ConfigError(
                "model.swin_upernet.weights: imagenet fits the sizes of Swin-B; give model=prff_swin_b"
            )
        if any(embed_dim * 2**level % heads for level, heads in enumerate(num_heads)):
            raise ConfigError(
                f"model.swin_upernet.num_heads: {list(num_heads)} must divide {embed_dim} x 1, 2, 4 and 8"
            )
        self.channels = channels
        self.swin = SwinTransformer(
            # Of this size no level is smaller than a window; other sizes are taken, too.
            img_size=32 * window_size,
            strict_img_size=False,
            in_chans=channels,
            num_classes=0,
            embed_dim=embed_dim,
            depths=tuple(depths),
            num_heads=tuple(num_heads),
            window_size=window_size,
            drop_path_rate=drop_path_rate,
        )
        widths = [embed_dim * 2**level for level in range(4)]
        self.norms = nn.ModuleList([nn.LayerNorm(width) for width in widths])
        self.swin.norm = nn.Identity()  # the levels have norms of their own
        # timm lets nobody choose this class; the weights are the same.
        self.swin.patch_embed.proj.__class__ = Float32Conv2d
        self.head = UPerNetHead(widths, head_channels, dropout)
        self.window_size = window_size
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of normal and anomalous; the classifier runs in float32 under mixed precision."""
        height, width = x.shape[2:]
        step = 16 * self.window_size  # the third level is the last whose windows shift
        padded = pad(x, (0, -width % step, 0, -height % step))
        levels = self.swin.forward_intermediates(padded, intermediates_only=True)
        pairs = zip(self.norms, levels, strict=True)
        normed = [norm(level.movedim(1, -1)).movedim(-1, 1) for norm, level in pairs]  # type: ignore[attr-defined]
        return interpolate(self.head(normed), size=padded.shape[2:], mode="bilinear")[..., :height, :width]

    def load_pretrained(self) -> None:
        """Give the encoder the weights that were asked for.

        Raises:
            ConfigError: they cannot be had, or do not fit; it says what to fetch and where to put it.
        """
        if self.weights == "random":
            return
        overlay = {} if self.weights == "imagenet" else {"file": self.weights}
        swin = self.swin
        try:
            source = timm.create_model(
                IMAGENET,
                pretrained=True,
                pretrained_cfg_overlay=overlay,
                img_size=32 * self.window_size,
                window_size=self.window_size,
                in_chans=self.channels,
                num_classes=0,
            )
            wanted = swin.state_dict().keys()
            swin.load_state_dict({key: value for key, value in source.state_dict().items() if key in wanted})
        except Exception as error:  # the hub, the file and the shapes each raise their own
            first = f"{type(error).__name__}: {str(error).strip().partition('.')[0].partition(chr(10))[0]}"
            ways = (
                f"give model.swin_upernet.weights=FILE with timm's {IMAGENET} (model.safetensors), or random"
            )
            raise ConfigError(
                f"model.swin_upernet.weights: {self.weights} cannot be used ({first}); {ways}"
            ) from error


@final
class UPerNetHead(nn.Module):
    """Pyramid pooling on the coarsest level, then a feature pyramid.

    All levels are joined at the finest one's size. It takes four levels (B, C_i, h / 2^i, w / 2^i) and gives
    (B, 2, h, w) float32 logits. The layers are mmsegmentation's.
    """

    def __init__(self, widths: Sequence[int], channels: int, dropout: float) -> None:
        super().__init__()
        self.pooled = nn.ModuleList([conv(widths[-1], channels, 1) for _ in POOLS])
        self.bottleneck = conv(widths[-1] + len(POOLS) * channels, channels, 3)
        self.laterals = nn.ModuleList([conv(width, channels, 1) for width in widths[:-1]])
        self.smooth = nn.ModuleList([conv(channels, channels, 3) for _ in widths[:-1]])
        self.joined = conv(len(widths) * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.out = Float32Conv2d(channels, 2, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the logits at the size of the first level."""
        coarse = levels[-1]
        pools = [
            branch(adaptive_avg_pool2d(coarse, side)) for side, branch in zip(POOLS, self.pooled, strict=True)
        ]
        coarse = self.bottleneck(torch.cat([coarse, *(enlarged(pool, coarse) for pool in pools)], dim=1))
        pyramid = [coarse]
        for lateral, level in zip(self.laterals[::-1], levels[-2::-1], strict=True):
            below = lateral(level)
            pyramid.insert(0, below + enlarged(pyramid[0], below))
        fine = [smooth(level) for smooth, level in zip(self.smooth, pyramid[:-1], strict=True)]
        joined = self.joined(
            torch.cat([fine[0], *(enlarged(level, fine[0]) for level in (*fine[1:], coarse))], dim=1)
        )
        logits: Tensor = self.out(self.dropout(joined))
        return logits


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """Return x resized to the height and width of another tensor, bilinear."""
    return interpolate(x, size=like.shape[2:], mode="bilinear")
