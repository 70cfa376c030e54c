"""From what was drawn to the bytes of a file."""

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS = 150  # of an inch


def drawn(figure: "Figure") -> np.ndarray:
    """Return the figure as (H, W, 3) uint8 RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only for who draws one

    figure.set_dpi(PIXELS)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


def png(picture: np.ndarray) -> bytes:
    """Return the file of an (H, W, 3) uint8 RGB picture; by OpenCV's own strategy it is slower and thrice as large."""
    how = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT]
    return cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]), how)[1].tobytes()
