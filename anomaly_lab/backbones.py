"""Features of a pretrained network, frozen or trained on."""

from collections.abc import Sequence
from typing import Any, Literal, final

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d

from anomaly_lab import networks
from anomaly_lab.cache import Cache, digest
from anomaly_lab.errors import ConfigError

VERSION = 1  # of what this file makes of an image: another one makes other entries in the cache
FEW = 4  # images at once on a CPU: what fits its caches is up to twice as fast, and takes less memory
Pool = Literal["none", "avg", "max", "cascade"]


@final
class FeatureExtractor(nn.Module):
    """Some layers of a timm network, CNN or vision transformer; frozen, always in eval mode, nothing deeper computed.

    It takes (B, 3, H, W) float32 in [0, 1] and normalises it as its weights want it. What it finds is kept in the
    cache, one entry an image and layer.

    Args:
        name: timm's, with the tag of the weights after a dot (``wide_resnet50_2.tv_in1k``).
        weights: ``imagenet`` (downloaded when training starts), a FILE with timm's own keys, ``bundled`` (ImageNet
            weights of tf_efficientnet_lite0, installed with this package) or ``random``.
        layers: names as timm's ``feature_info`` has them.
        pool: ``none`` keeps maps; ``avg`` and ``max`` give a vector a layer; ``cascade`` joins the maximum, the average
            and the maximum of 2 x 2 averages, three times as many channels (CPCAE-kNN, section 3.2; its exact
            poolings are in a lost figure, so these are ours).
        cache: where features are kept.

    Attributes:
        channels: of each layer, after pooling.
        strides: of each layer, in pixels of the image.
    """

    mean: Tensor  # (3, 1, 1)
    std: Tensor

    def __init__(self, name: str, weights: str, layers: Sequence[str], pool: Pool, cache: Cache) -> None:
        super().__init__()
        self.name = name
        networks.check(name, weights)
        self.weights, self.layers, self.pool, self.cache = weights, tuple(layers), pool, cache
        self.making, self.order, facts = networks.chosen(name, self.layers)
        self.network = networks.frozen(timm.create_model(name, **self.making))
        self.channels = [fact["num_chs"] * (3 if pool == "cascade" else 1) for fact in facts]
        self.strides = [fact["reduction"] for fact in facts]
        for key, values in networks.statistics(self.network).items():
            self.register_buffer(key, values, persistent=False)
        self.identities: list[str] = []  # of the weights that each layer comes from, computed once
        self.last: tuple[str, torch.device, Tensor, list[Tensor]] | None = None
        for module in (self, self.network):
            module.register_load_state_dict_post_hook(self._forget)

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError unless the network takes images of this size."""
        networks.check_takes(self.name, self.layers, height, width)

    def _forget(self, *_: object) -> None:
        """Other weights came: nothing known of the old ones holds."""
        self.identities, self.last = [], None

    def train(self, mode: bool = True) -> "FeatureExtractor":  # noqa: ARG002, FBT001, FBT002 - torch's signature
        """Stay in eval mode: frozen statistics are frozen."""
        return super().train(False)  # noqa: FBT003

    def maps(self) -> "FeatureExtractor":
        """Return itself. ConfigError: it pools, but maps are wanted."""
        if self.pool != "none":
            raise ConfigError(f"model.backbone.pool: this method wants maps, so give none, not {self.pool}")
        return self

    def vectors(self) -> "FeatureExtractor":
        """Return itself. ConfigError: it does not pool, but vectors are wanted."""
        if self.pool == "none":
            raise ConfigError("model.backbone.pool: this method wants a vector an image; give avg, max or cascade")
        return self

    def load_pretrained(self) -> None:
        """Give the network the weights that were asked for; ConfigError: they cannot be had, or do not fit."""
        if self.weights != "random":
            found = networks.pretrained(self.name, self.weights, self.making)
            self.network.load_state_dict(networks.frozen(found).state_dict())

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return each layer's features, in the order asked for: (B, C, h, w) float32 maps, or (B, C) when pooled."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return self._compute(image)
        device = image.device
        precision = str(torch.get_autocast_dtype(device.type)) if torch.is_autocast_enabled(device.type) else ""
        if self.last is not None and self.last[:2] == (precision, device) and _same(self.last[2], image):
            return self.last[3]
        levels = self._kept(image, precision) if self.cache.limit else self._compute(image)
        self.last = (precision, device, image.clone(), levels)  # whoever draws asks for the batch that was just scored
        return levels

    def _kept(self, image: Tensor, precision: str) -> list[Tensor]:
        """Return the features from the cache, after those that are missing were computed."""
        if not self.identities:
            self.identities = self._identified()
        how = (VERSION, timm.__version__, self.pool, image.device.type, precision)
        made_by = [(layer, identity, *how) for layer, identity in zip(self.layers, self.identities, strict=True)]
        sources = map(_source, image.detach().float().cpu().numpy())
        keys = [[digest(source, *by) for by in made_by] for source in sources]
        found: list[Any] = [[self.cache.get(key) for key in row] for row in keys]
        missing = [row for row, values in enumerate(found) if any(value is None for value in values)]
        if missing:
            computed = [level.cpu().numpy() for level in self._compute(image[missing])]
            for position, row in enumerate(missing):
                found[row] = [level[position] for level in computed]
                for key, value in zip(keys[row], found[row], strict=True):
                    self.cache.put(key, value)
        stacked = ([torch.from_numpy(value.copy()) for value in column] for column in zip(*found, strict=True))
        return [torch.stack(column).to(image.device) for column in stacked]

    def _identified(self) -> list[str]:
        """Return a digest of the weights that each layer comes from, so that it is the same beside deeper layers."""
        state, indices = self.network.state_dict(), self.making["out_indices"]
        found = []
        for index in (indices[position] for position in self.order):
            owners = {key.rpartition(".")[0] for key in state}
            if index != max(indices):
                with torch.device("meta"):
                    shallow = timm.create_model(self.name, **self.making | {"out_indices": [index]}).state_dict()
                owners = {key.rpartition(".")[0] for key in shallow}
            needed = [value for key, value in state.items() if key.rpartition(".")[0] in owners]
            found.append(digest(self.name, self.mean, self.std, *needed))
        return found

    def _compute(self, image: Tensor) -> list[Tensor]:
        few = FEW if image.device.type == "cpu" else len(image)
        parts = [self._levels(part) for part in torch.split(image, max(1, few))]
        return [torch.cat(level).contiguous() for level in zip(*parts, strict=True)]  # as the cache writes them

    @torch.no_grad()
    def _levels(self, image: Tensor) -> list[Tensor]:
        normalised = (image.float() - self.mean) / self.std
        levels = self.network(normalised.contiguous(memory_format=torch.channels_last))
        return [pooled(levels[index].float(), self.pool) for index in self.order]


@final
class TrainedBackbone(nn.Module):
    """Some layers of a timm network that a method trains on from pretrained weights; nothing deeper is computed.

    It takes (B, 3, H, W) float32 in [0, 1] and normalises it as its weights want it.

    Args:
        name, weights, layers: as `FeatureExtractor` has them.
        freeze: the weights, and the statistics of its norms, stay as they came.

    Attributes:
        channels, strides: of each layer; strides in pixels of the image.
    """

    mean: Tensor  # (3, 1, 1)
    std: Tensor

    def __init__(self, name: str, weights: str, layers: Sequence[str], freeze: bool) -> None:  # noqa: FBT001 - an ablation
        super().__init__()
        networks.check(name, weights)
        self.name, self.weights, self.layers, self.freeze = name, weights, tuple(layers), freeze
        self.making, self.order, facts = networks.chosen(name, self.layers)
        self.form = networks.frozen if freeze else networks.trained
        self.network = self.form(timm.create_model(name, **self.making))
        self.channels, self.strides = ([fact[key] for fact in facts] for key in ("num_chs", "reduction"))
        for key, values in networks.statistics(self.network).items():
            self.register_buffer(key, values, persistent=False)

    def check_size(self, height: int, width: int) -> None:
        """Raise ConfigError unless the network takes images of this size, its deepest map two pixels a side."""
        networks.check_takes(self.name, self.layers, height, width)
        least = 2 * max(self.strides)  # a batch norm must have more than one value of a batch of one
        if min(height, width) < least:
            raise ConfigError(f"data.image_size: {height} x {width}; the layers of {self.name} want at least {least}")

    def train(self, mode: bool = True) -> "TrainedBackbone":  # noqa: FBT001, FBT002 - torch's signature
        """Stay in eval mode where it is frozen."""
        return super().train(mode and not self.freeze)

    def load_pretrained(self) -> None:
        """Give the network the weights that were asked for; ConfigError: they cannot be had, or do not fit."""
        if self.weights != "random":
            found = networks.pretrained(self.name, self.weights, self.making)
            self.network.load_state_dict(self.form(found).state_dict())

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return each layer's (B, C, h, w) maps, in the order asked for."""
        normalised = (image.float() - self.mean) / self.std
        levels = self.network(normalised.contiguous(memory_format=torch.channels_last))
        return [levels[index] for index in self.order]


def pooled(level: Tensor, pool: Pool) -> Tensor:
    """Return (B, C, h, w) features as they are, or as one vector an image; see `FeatureExtractor`."""
    if pool == "none":
        return level
    parts = []
    if pool in {"max", "cascade"}:
        parts.append(adaptive_max_pool2d(level, 1))
    if pool in {"avg", "cascade"}:
        parts.append(adaptive_avg_pool2d(level, 1))
    if pool == "cascade":
        small = min(level.shape[2:]) < 2
        parts.append(adaptive_max_pool2d(level if small else avg_pool2d(level, 2), 1))
    return torch.cat(parts, dim=1).flatten(1)


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one[:1], other[:1]) and torch.equal(one[1:], other[1:])  # mostly the first image tells


def _source(image: np.ndarray) -> str:
    """Return the digest of a float32 image; one of 8 bits, as some device divides it, is digested as such."""
    with np.errstate(invalid="ignore", over="ignore"):  # of what is no image of 8 bits
        small = np.rint(image * np.float32(255)).astype(np.uint8)
    if np.array_equal(small / np.float32(255), image):
        return digest(small)
    if np.array_equal(small * np.float32(1 / 255), image):  # CUDA's way, which is another in the last bit
        return digest("reciprocal", small)
    return digest(image)
