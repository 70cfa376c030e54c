"""The patch transformer that encodes images in VT-ADL (Mishra et al., ISIE 2021), as in its released code."""

from collections.abc import Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from anomaly_lab.errors import ConfigError


@final
class PatchTransformer(nn.Module):
    """A pre-norm transformer on patches.

    It maps (B, 3, H, W) to (B, T, dim) float32, a token a patch in reading order. A class token takes part
    and is dropped; positions are learned; nothing is normalised after the last block. With 512 px, dim 512,
    depth 6, 8 heads and an MLP of 1024 it has 14.31 M parameters with patches of 32 and 18.93 M with those of
    64.

    Args:
        image_size: side, or [height, width], of the images, which the positions are learned for.
        patch_size: side of a patch; the image's sides are multiples of it.
        dim: of a token, a multiple of ``heads``.
        depth: number of blocks.
        heads: of the attention.
        mlp_dim: of the hidden layer in each block.
        scale: products of queries and keys are divided by the root of a head's dim (``head_dim``, the text's
            standard attention) or of ``dim`` (released).
        position_std: standard deviation that the learned positions start with (released: 1).
    """

    def __init__(  # noqa: PLR0913, PLR0917 - hyperparameters
        self,
        image_size: int | Sequence[int] | None,
        patch_size: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_dim: int,
        scale: Literal["dim", "head_dim"],
        position_std: float,
    ) -> None:
        super().__init__()
        if image_size is None:
            way_out = "without data.center_crop give 'model.encoder.image_size=${data.image_size}'"
            raise ConfigError(f"model.encoder.image_size: is null; {way_out}")
        if min(patch_size, dim, depth, heads, mlp_dim) < 1:
            raise ConfigError("model.encoder: patch_size, dim, depth, heads and mlp_dim must be at least 1")
        if position_std < 0:
            raise ConfigError(f"model.encoder.position_std: {position_std}; give at least 0")
        if dim % heads:
            raise ConfigError(
                f"model.encoder.heads: {heads} do not divide model.encoder.dim={dim}; change one"
            )
        sides = [image_size, image_size] if isinstance(image_size, int) else image_size
        if len(sides) != 2 or min(sides) < 1:
            raise ConfigError(
                f"model.encoder.image_size: {image_size}; give one side or [height, width], at least 1"
            )
        self.height, self.width = sides
        if self.height % patch_size or self.width % patch_size:
            shown = f"{patch_size} does not divide {self.height} x {self.width}"
            raise ConfigError(f"model.encoder.patch_size: {shown}; change it or the size that data makes")
        self.patch_size = patch_size
        self.dim = dim
        self.grid = (self.height // patch_size, self.width // patch_size)
        self.tokens = self.grid[0] * self.grid[1]
        self.embed = nn.Conv2d(3, dim, patch_size, stride=patch_size)  # a linear map of each flattened patch
        self.place = nn.Parameter(position_std * torch.randn(1, self.tokens + 1, dim))
        self.class_token = nn.Parameter(torch.randn(1, 1, dim))
        factor = (dim if scale == "dim" else dim // heads) ** -0.5
        self.blocks = nn.Sequential(*(Block(dim, heads, mlp_dim, factor) for _ in range(depth)))
        self.apply(_initialise)

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError unless these are the sides that the positions are learned for."""
        if (height, width) != (self.height, self.width):
            given = f"{self.height} x {self.width}, but images have {height} x {width}"
            raise ConfigError(f"model.encoder.image_size: {given}; give it the size that data makes")

    def forward(self, image: Tensor) -> Tensor:
        """Return the tokens, in float32 also under mixed precision.

        Their likelihood squares what is rounded here.
        """
        with torch.autocast(image.device.type, enabled=False):
            patches = self.embed(image).flatten(2).transpose(1, 2)
            tokens = torch.cat([self.class_token.expand(len(image), -1, -1), patches], dim=1) + self.place
            encoded: Tensor = self.blocks(tokens)[:, 1:]
        return encoded


@final
class Block(nn.Module):
    """Attention and an MLP (GELU), each after a layer norm and beside a residual path.

    It maps (B, T, dim) to the same.
    """

    def __init__(self, dim: int, heads: int, mlp_dim: int, factor: float) -> None:
        super().__init__()
        self.heads = heads
        self.factor = factor
        self.attention_norm = nn.LayerNorm(dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens after the block."""
        # (B, T, 3, heads, dim of a head).
        split = self.qkv(self.attention_norm(x)).unflatten(2, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(query, key, value, scale=self.factor)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        changed: Tensor = x + self.mlp(self.mlp_norm(x))
        return changed


def _initialise(module: nn.Module) -> None:
    """Weights as in the released code: linear maps Kaiming-normal, biases 0."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
