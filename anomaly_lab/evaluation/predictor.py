"""Scores decoded images with a method, as its test step does."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self, final

import lightning as L
import numpy as np
import torch
from torch import Tensor

from anomaly_lab.data.batches import as_tensor
from anomaly_lab.errors import RunError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import Prediction, in_unit_range


@final
class Predictor:
    """Takes (H, W, 3) uint8 images of the network's size, in batches that fit the device.

    It gives results on the CPU.

    Args:
        method: is put on the device, in eval mode.
        device: to compute on.
        precision: makes the context that the method runs in, which is where mixed precision comes from.
    """

    def __init__(
        self,
        method: AnomalyMethod,
        device: torch.device,
        precision: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.method = method
        self.device = device
        self.precision = precision

    @classmethod
    def of(cls, trainer: L.Trainer, method: AnomalyMethod) -> Self:
        """Return one that computes as this trainer's test does."""
        return cls(method, trainer.strategy.root_device, trainer.precision_plugin.forward_context)

    def __call__(self, images: Sequence[np.ndarray] | np.ndarray) -> Prediction:
        """Score all images at once: maps (N, H, W) and scores (N,), float32."""
        self._get_ready()
        return self._scored(images)

    def panels(self, images: Sequence[np.ndarray] | np.ndarray) -> dict[str, Tensor]:
        """Return the further pictures and maps that the method has of the images, float32."""
        self._get_ready()
        found = self._computed(self.method.panels, images)
        return {name: value.float().cpu() for name, value in found.items()}

    def batches(self, images: np.ndarray, batch_size: int) -> Iterator[tuple[list[int], Prediction]]:
        """Yield the rows of (N, H, W, 3) images, some at a time and in order, with their prediction."""
        self._get_ready()
        for start in range(0, len(images), batch_size):
            few = images[start : start + batch_size]
            yield list(range(start, start + len(few))), self._scored(few)

    def _get_ready(self) -> None:
        # Between two of its loops Lightning takes a method back to the CPU.
        self.method.to(self.device).eval()

    def _scored(self, images: Sequence[np.ndarray] | np.ndarray) -> Prediction:
        prediction = self._computed(self.method, images)
        check_prediction(self.method, prediction, images)
        return Prediction(*(value.cpu() for value in prediction))

    def _computed(self, computed: Callable[[Tensor], Any], images: Sequence[np.ndarray] | np.ndarray) -> Any:
        batch = torch.stack([as_tensor(image) for image in images]).to(self.device)
        with torch.inference_mode(), self.precision():
            return computed(in_unit_range(batch))


def check_prediction(
    method: AnomalyMethod, prediction: Any, images: Sequence[np.ndarray] | np.ndarray
) -> None:
    """Raise RunError unless a method said a `Prediction` of (H, W, 3) images: maps (N, H, W), scores (N,)."""
    height, width = images[0].shape[:2]
    wanted = [(len(images), height, width), (len(images),)]
    found = [tuple(value.shape) for value in prediction] if isinstance(prediction, Prediction) else None
    if found != wanted:
        shapes = f"a Prediction of shapes {wanted[0]} and {wanted[1]}"
        got = type(prediction).__name__ if found is None else f"{found[0]} and {found[1]}"
        raise RunError(
            f"{type(method).__name__}.forward must return {shapes} for {len(images)} images, not {got}"
        )
