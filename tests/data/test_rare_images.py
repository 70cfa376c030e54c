"""Files beyond 8 bits, odd kinds of TIFF, files of several images: right, or refused by one line."""

import struct

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from anomaly_lab.data.images import Reading, read_clipped, read_image, white_of
from anomaly_lab.errors import DataError

RNG = np.random.default_rng(11)
WIDE = RNG.integers(0, 65536, (13, 19, 3), dtype=np.uint16)
SMALL = RNG.integers(0, 256, (13, 19, 3), dtype=np.uint8)


def tiff(array, planes=1, photometric=None):
    """Return an uncompressed little-endian TIFF as the standard has it: header, directory, strips."""
    height, width, samples = (*array.shape, 1)[:3]
    bits = array.dtype.itemsize * 8
    values = array.reshape(height, width, samples)
    strips = [values[..., i] for i in range(samples)] if planes == 2 else [values]
    blobs = [np.ascontiguousarray(strip).astype(strip.dtype.newbyteorder("<")).tobytes() for strip in strips]
    photometric = (2 if samples == 3 else 1) if photometric is None else photometric
    kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    entries = {256: [width], 257: [height], 258: [bits] * samples, 259: [1], 262: [photometric]}
    entries |= {273: [0] * len(blobs), 277: [samples], 278: [height], 279: list(map(len, blobs))}
    entries |= {284: [planes], 339: [kind] * samples}
    beyond = 8 + 2 + 12 * len(entries) + 4
    size = sum(4 * len(numbers) for numbers in entries.values() if len(numbers) > 1)
    at = beyond + size
    entries[273] = [at + sum(map(len, blobs[:i])) for i in range(len(blobs))]
    directory, tail = struct.pack("<H", len(entries)), b""
    for tag, numbers in sorted(entries.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        place = packed if len(numbers) == 1 else struct.pack("<I", beyond + len(tail))
        tail += b"" if len(numbers) == 1 else packed
        directory += struct.pack("<HHI", tag, 4, len(numbers)) + place
    return struct.pack("<2sHI", b"II", 42, 8) + directory + bytes(4) + tail + b"".join(blobs)


def eight(values):
    return (values.astype(int) + 128) // 257


@pytest.mark.parametrize("planes", [1, 2])
def test_colours_of_eight_bits_may_lie_in_planes(tmp_path, planes):
    (tmp_path / "a.tif").write_bytes(tiff(SMALL, planes))
    assert np.array_equal(read_image(tmp_path / "a.tif"), SMALL)


def test_colours_of_sixteen_bits_in_planes_are_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(WIDE))
    assert np.array_equal(read_image(tmp_path / "a.tif"), eight(WIDE))
    (tmp_path / "a.tif").write_bytes(tiff(WIDE, planes=2))
    with pytest.raises(DataError, match=r"a\.tif: its 16 bit colours lie in separate planes; save it with"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("array", [SMALL[..., 0], WIDE[..., 0]], ids=["8 bit", "16 bit"])
def test_where_zero_is_white_the_picture_is_inverted(tmp_path, array):
    (tmp_path / "a.tif").write_bytes(tiff(np.iinfo(array.dtype).max - array, photometric=0))
    wanted = array if array.dtype == np.uint8 else eight(array)
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., 1], wanted)


def test_floats_of_which_zero_is_white_are_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(RNG.random((5, 6), np.float32), photometric=0))
    with pytest.raises(DataError, match=r"a\.tif: its values are floats of which 0 is white; save it with 0"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["tif", "png", "webp"])
def test_several_images_in_a_file_are_refused(tmp_path, suffix):
    first, second, third = (Image.fromarray(np.roll(SMALL, i, axis=0)) for i in range(3))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second, third])
    with pytest.raises(DataError, match=rf"a\.{suffix}: it holds 3 images \(pages or frames\); save the"):
        read_image(tmp_path / f"a.{suffix}")


def test_previews_are_no_images_of_their_own(tmp_path):
    picture, preview = Image.fromarray(SMALL), Image.fromarray(SMALL[::2, ::2])
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(SMALL, photometric="rgb")
        file.write(SMALL[::2, ::2], photometric="rgb", subfiletype=1)  # a smaller copy of another page
    with Image.open(tmp_path / "a.tif") as file:
        assert file.n_frames == 2
    assert np.array_equal(read_image(tmp_path / "a.tif"), SMALL)
    picture.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview], quality=100)
    assert read_image(tmp_path / "a.jpg").shape == SMALL.shape


@pytest.mark.parametrize("white", [255, 4095, 65535])
@pytest.mark.parametrize("kind", ["png", "tif", "int32.tif"])
def test_white_becomes_255_and_brighter_values_too(tmp_path, white, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "int32.tif":
        Image.fromarray(WIDE[..., 0].astype(np.int32)).save(path)
    else:
        cv2.imwrite(str(path), WIDE[..., 0])
    image, clipped = read_clipped(path, Reading(white))
    exact = np.minimum(WIDE[..., 0].astype(float) * 255 / white, 255)
    assert np.abs(image[..., 0] - exact).max() <= 0.5
    assert clipped == (white < WIDE[..., 0].max())


def test_white_is_of_no_file_of_eight_bits_and_of_no_float(tmp_path):
    Image.fromarray(SMALL).save(tmp_path / "a.png")
    Image.fromarray(np.ones((5, 6), np.float32)).save(tmp_path / "b.tif")
    for name, value in (("a.png", SMALL), ("b.tif", 255)):
        image, clipped = read_clipped(tmp_path / name, Reading(100))
        assert not clipped
        assert (image == value).all()
    assert white_of([tmp_path / "a.png", tmp_path / "b.tif"], 100) == 65535
    assert white_of([], 100) == 65535


@pytest.mark.parametrize(
    ("largest", "white"), [(0, 255), (255, 255), (256, 1023), (4000, 4095), (4096, 16383), (16384, 65535)]
)
def test_the_white_of_a_data_set_holds_its_largest_value(tmp_path, largest, white):
    files = [tmp_path / name for name in ("a.tif", "b.png", "c.png")]
    Image.fromarray(np.full((5, 6), largest, np.int32)).save(files[0])
    Image.fromarray(np.zeros((5, 6), np.uint16)).save(files[1])
    Image.fromarray(SMALL).save(files[2])
    assert white_of(files, 100) == white
