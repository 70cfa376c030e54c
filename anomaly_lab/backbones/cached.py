"""Features that were computed before: of earlier runs from the disk, of the last batch from memory."""

from typing import Any, final

import numpy as np
import timm
import torch
from torch import Tensor

from anomaly_lab.backbones.cache import Cache, digest
from anomaly_lab.backbones.extractor import FeatureExtractor

VERSION = 1  # of what an extractor makes of an image: another one makes other entries in the cache


@final
class CachedExtractor:
    """Asks an extractor only for what neither the cache nor the last batch has; one entry an image and layer.

    It holds the extractor without owning it: the method's state has the extractor's weights once. Where a
    graph is traced or compiled, the extractor is asked at once, so that nothing of the cache gets into the
    graph.
    """

    def __init__(self, extractor: FeatureExtractor, cache: Cache) -> None:
        self.extractor = extractor
        self.cache = cache
        self.identities: list[str] = []  # of the weights that each layer comes from, computed once
        self.last: tuple[str, torch.device, Tensor, list[Tensor]] | None = None
        for module in (extractor, extractor.network):
            module.register_load_state_dict_post_hook(self._forget)

    def _forget(self, *_: object) -> None:
        """Other weights came: nothing known of the old ones holds."""
        self.identities = []
        self.last = None

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Return what the extractor returns of (B, 3, H, W) float32 images in [0, 1]."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            levels: list[Tensor] = self.extractor(image)
            return levels
        device = image.device
        precision = (
            str(torch.get_autocast_dtype(device.type)) if torch.is_autocast_enabled(device.type) else ""
        )
        if self.last is not None and self.last[:2] == (precision, device) and _same(self.last[2], image):
            return self.last[3]
        levels = self._kept(image, precision) if self.cache.limit else self.extractor(image)
        # Whoever draws asks for the batch that was just scored.
        self.last = (precision, device, image.clone(), levels)
        return levels

    def _kept(self, image: Tensor, precision: str) -> list[Tensor]:
        """Return the features from the cache, after those that are missing were computed."""
        if not self.identities:
            self.identities = self._identified()
        how = (VERSION, timm.__version__, self.extractor.pool, image.device.type, precision)
        pairs = zip(self.extractor.layers, self.identities, strict=True)
        made_by = [(layer, identity, *how) for layer, identity in pairs]
        sources = map(_source, image.detach().float().cpu().numpy())
        keys = [[digest(source, *by) for by in made_by] for source in sources]
        sides = (None, None) if self.extractor.pool == "none" else ()
        shapes = [(channels, *sides) for channels in self.extractor.channels]
        found: list[Any] = [
            [self.cache.get(key, np.float32, shape) for key, shape in zip(row, shapes, strict=True)]
            for row in keys
        ]
        missing = [row for row, values in enumerate(found) if any(value is None for value in values)]
        if missing:
            computed = [level.cpu().numpy() for level in self.extractor(image[missing])]
            for position, row in enumerate(missing):
                found[row] = [level[position] for level in computed]
                for key, value in zip(keys[row], found[row], strict=True):
                    self.cache.put(key, value)
        stacked = (
            [torch.from_numpy(value.copy()) for value in column] for column in zip(*found, strict=True)
        )
        return [torch.stack(column).to(image.device) for column in stacked]

    def _identified(self) -> list[str]:
        """Return for each layer a digest of the weights that it comes from.

        So it is the same beside deeper layers.
        """
        extractor = self.extractor
        state = extractor.network.state_dict()
        indices = extractor.making["out_indices"]
        found = []
        for index in (indices[position] for position in extractor.order):
            owners = {key.rpartition(".")[0] for key in state}
            if index != max(indices):
                with torch.device("meta"):
                    making = extractor.making | {"out_indices": [index]}
                    shallow = timm.create_model(extractor.name, **making).state_dict()
                owners = {key.rpartition(".")[0] for key in shallow}
            needed = [value for key, value in state.items() if key.rpartition(".")[0] in owners]
            found.append(digest(extractor.name, extractor.mean, extractor.std, *needed))
        return found


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
