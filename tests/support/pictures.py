"""What figures and pictures show."""

import io

import numpy as np
from PIL import Image

from anomaly_lab.pictures.sheets import drawn, png


def words(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def rendered(figure) -> np.ndarray:
    """Return the (H, W, 3) uint8 picture as a run writes it."""
    return np.array(Image.open(io.BytesIO(png(drawn(figure)))).convert("RGB"))
