"""Reading of what is neither 8 bit grey nor 8 bit RGB, and refusing of what would be misread."""

import re

import cv2
import numpy as np
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

# tags of a TIFF
SUBFILE = 254
BITS = 258
PHOTOMETRIC = 262
SAMPLES = 277
PLANES = 284


def is_wide(image: ImageFile) -> bool:
    """Say whether an opened file has more than 8 bits a value."""
    return image.mode[0] in "IF" or ";16" in str(image.tile[:1])


def refuse_odd(image: ImageFile) -> None:
    """Raise ValueError for an opened file of several images, and for a kind of TIFF that PIL misreads.

    Previews and masks of the first picture, which phones and scanners hide in a file, do not count.
    """
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        if max(tags.get(BITS, (1,))) > 8 and tags.get(PLANES) == 2 and tags.get(SAMPLES, 1) > 1:
            raise ValueError("its 16 bit colours lie in separate planes; save it with interleaved ones")
        if image.mode == "F" and tags.get(PHOTOMETRIC) == 0:
            raise ValueError("its values are floats of which 0 is white; save it with 0 as black")
        frames = 1 + sum(not _subfile(image, frame) & 0b101 for frame in range(1, frames))
        image.seek(0)
    if frames > 1:
        raise ValueError(f"it holds {frames} images (pages or frames); save the right one by itself")


def _subfile(image: TiffImageFile, frame: int) -> int:
    """Return what a page is: bit 0 is set for a smaller copy of another one, bit 2 for its mask."""
    image.seek(frame)
    return int(image.tag_v2.get(SUBFILE, 0))


def rare_values(image: ImageFile, data: bytes) -> np.ndarray:
    """Return (H, W) or (H, W, 3): uint16, int32 or float32 where the file is so wide, else uint8.

    Transparency is blended over black, the value of padding: what lies beneath is whatever the editor left
    there. ``image`` is the opened file of ``data``. Raises what PIL raises.
    """
    wide = re.search(r";16[BLN]", str(image.tile[:1]))
    image.load()
    if image.mode[0] in "IF":
        white_is_zero = isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == 0
        return 65535 - np.array(image) if white_is_zero else np.array(image)  # of integers, 16 bit ones alone
    if wide and image.mode != "CMYK":  # of 16 bit colour PIL keeps the high bytes alone
        values = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
        opacity = values[..., 3:] / 65535 if values.shape[2] == 4 else 1
        return np.rint(values[..., 2::-1] * opacity).astype(np.uint16)
    if image.has_transparency_data:
        return np.array(image.convert("RGBA").convert("RGBa"))[..., :3]
    return np.array(image.convert("L" if image.mode == "1" else "RGB"))


def to_uint8(values: np.ndarray, white: int) -> np.ndarray:
    """Scale integers of 0 to ``white``, and floats of 0 to 1, by 255 / white to the nearest.

    Brighter integers are white. Never by an image's own range: a defect would change the brightness of
    everything around it.

    Raises:
        ValueError: integers leave 16 bits, floats 0 to 1.
    """
    unit = values.dtype.kind == "f"
    most = 1 if unit else 65535
    if not 0 <= values.min() <= values.max() <= most:
        raise ValueError(f"its {values.dtype} values leave 0 to {most}; save it as 8 or 16 bit")
    return np.rint(values * 255.0 if unit else np.minimum(values, white) * (255 / white)).astype(np.uint8)
