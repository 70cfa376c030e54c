"""Features that were computed before: of earlier runs from the disk, of the last batch from memory."""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import timm
import torch
import xxhash
from torch import Tensor

from anomaly_lab.backbones.cache import Cache, digest
from anomaly_lab.backbones.extractor import FeatureExtractor

VERSION = 2  # of what an extractor makes of an image: another one makes other entries in the cache


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
        self.last: tuple[list[str], str, list[Tensor]] | None = None  # images, precision, their features
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
        images = [source(one) for one in image.detach().float().cpu().numpy()]
        how = f"{device} {precision}"
        # Whoever draws asks for the batch that was just scored.
        if self.last is None or self.last[:2] != (images, how):
            levels = self._kept(image, images, precision) if self.cache.limit else self.extractor(image)
            self.last = (images, how, levels)
        return self.last[2]

    def _kept(self, image: Tensor, images: Sequence[str], precision: str) -> list[Tensor]:
        """Return the features from the cache, after those that are missing were computed.

        Args:
            image: (B, 3, H, W) images, in [0, 1].
            images: `source` of each.
            precision: of the autocast, empty if there is none.
        """
        if not self.identities:
            self.identities = self._identified()
        how = (VERSION, timm.__version__, self.extractor.pool, image.device.type, precision)
        pairs = zip(self.extractor.layers, self.identities, strict=True)
        made_by = [(layer, identity, *how) for layer, identity in pairs]
        keys = [[digest(name, *by) for by in made_by] for name in images]
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


def source(image: np.ndarray) -> str:
    """Return what a float32 image is known by: its size, and 32 hex digits (XXH3) of its values."""
    values = np.ascontiguousarray(image)
    return f"{image.shape} {xxhash.xxh3_128_hexdigest(values.data.cast('B'))}"
