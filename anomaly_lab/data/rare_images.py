"""Reading of what is neither 8 bit grey nor 8 bit RGB; loaded only when a file is."""

import re

import cv2
import numpy as np
from PIL.ImageFile import ImageFile


def rare_values(image: ImageFile, data: bytes) -> np.ndarray:
    """Return (H, W) or (H, W, 3): uint16, int32 or float32 where the file is so wide, else uint8.

    Transparency is blended over black, the value of padding: what lies beneath is whatever the editor left
    there. ``image`` is the opened file of ``data``. Raises what PIL raises.
    """
    wide = re.search(r";16[BLN]", str(image.tile[:1]))
    image.load()
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.array(image)
    if wide:  # of 16 bit colour PIL keeps the high bytes alone
        values = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
        opacity = values[..., 3:] / 65535 if values.shape[2] == 4 else 1
        return np.rint(values[..., 2::-1] * opacity).astype(np.uint16)
    if image.has_transparency_data:
        return np.array(image.convert("RGBA").convert("RGBa"))[..., :3]
    return np.array(image.convert("L" if image.mode == "1" else "RGB"))


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Scale integers of 0 to 65535 by 1 / 257, and floats of 0 to 1 by 255, to the nearest.

    Never by an image's own range: a defect would change the brightness of everything around it.

    Raises:
        ValueError: a value lies beyond.
    """
    white = 1 if values.dtype.kind == "f" else 65535
    if not 0 <= values.min() <= values.max() <= white:
        raise ValueError(f"its {values.dtype} values leave 0 to {white}; save it as 8 or 16 bit")
    return np.rint(values * (255 / white)).astype(np.uint8)
