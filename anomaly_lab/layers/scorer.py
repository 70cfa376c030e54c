"""From an anomaly map to a score for the image."""

from typing import Annotated, Literal, final

from torch import Tensor
from torch.nn.functional import avg_pool2d

from anomaly_lab.errors import ConfigError
from anomaly_lab.types import EVALUATION_ONLY, Prediction


@final
class Scorer:
    """Smooths a copy of the map by a mean filter and reduces it to one number.

    The filter has stride 1, and its zero padding counts. The map itself stays as it is: DRAEM's pixel metrics
    are on the unsmoothed map (draem.md, note 11).
    """

    def __init__(
        self,
        kernel_size: Annotated[int, EVALUATION_ONLY],
        reduce: Annotated[Literal["max", "mean"], EVALUATION_ONLY],
    ) -> None:
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(f"model.scorer.kernel_size: {kernel_size} is not an odd number above 0")
        self.kernel_size = kernel_size
        self.reduce = reduce

    def __call__(self, anomaly_map: Tensor) -> Prediction:
        """Return the (B, H, W) float32 map with its (B,) scores."""
        anomaly_map = anomaly_map.float()
        smooth = avg_pool2d(anomaly_map[:, None], self.kernel_size, stride=1, padding=self.kernel_size // 2)
        return Prediction(
            anomaly_map, smooth.amax((1, 2, 3)) if self.reduce == "max" else smooth.mean((1, 2, 3))
        )
