"""From arrays and figures to the bytes of a picture file."""

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

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
    """Return the file of an (H, W, 3) uint8 RGB picture.

    By OpenCV's own strategy it is made more slowly and is thrice as large.
    """
    how = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT]
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), how)[1].tobytes()


def uint8(image: torch.Tensor) -> np.ndarray:
    """Return a (3, H, W) picture in [0, 1] as (H, W, 3) uint8; values beyond are clipped."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def colour(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the map as (H, W, 3) uint8 RGB, dark at ``low``, bright at ``high``."""
    level = np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1)
    coloured = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB)


def heated(image: np.ndarray, anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the picture with the map's colours laid over it, the more the higher the map is."""
    level = np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1)
    red_to_yellow = np.stack([np.full_like(level, 255), 230 * level, np.zeros_like(level)], axis=-1)
    share = 0.85 * level[..., None]
    mixed = image * (1 - share) + red_to_yellow * share
    return np.asarray(np.rint(mixed), np.uint8)


def outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the picture with the mask's contour drawn on it."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(image.copy(), contours, -1, (255, 40, 40), 1)


def sheet(title: str, panels: dict[str, np.ndarray]) -> np.ndarray:
    """Return the panels side by side, enlarged to at least 224 px, each with its name, under a title."""
    tall = max(224, next(iter(panels.values())).shape[0])
    columns = []
    for name, panel in panels.items():
        wide = round(panel.shape[1] * tall / panel.shape[0])
        column = np.full((tall + 22, wide + 6, 3), 255, np.uint8)
        column[22:, 3:-3] = cv2.resize(panel, (wide, tall), interpolation=cv2.INTER_NEAREST)
        columns.append(write(column, name, 15))
    body = np.concatenate(columns, axis=1)
    head = write(np.full((26, body.shape[1], 3), 255, np.uint8), title, 18)
    return np.concatenate([head, body])


def write(canvas: np.ndarray, text: str, baseline: int) -> np.ndarray:
    """Write a line of text near the top; what OpenCV's font lacks becomes a question mark."""
    plain = text.encode("ascii", "replace").decode()
    return cv2.putText(
        canvas, plain, (4, baseline), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (20, 20, 20), 1, cv2.LINE_AA
    )
