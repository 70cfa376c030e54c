"""Reading of images and masks against independent constructions."""

import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from anomaly_lab.data.content import content_hash
from anomaly_lab.data.images import Reading, read_image, read_mask
from anomaly_lab.errors import DataError
from tests.support.trees import write_png

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (13, 19), dtype=np.uint8)
RGB = RNG.integers(0, 256, (13, 19, 3), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (13, 19, 3), dtype=np.uint16)
ALPHA = RNG.integers(0, 256, (13, 19), dtype=np.uint8)
# The EXIF standard: the sides of the upright image at which row 0 and column 0 of the stored one lie.
SIDES = {1: "TL", 2: "TR", 3: "BR", 4: "BL", 5: "LT", 6: "RT", 7: "RB", 8: "LB"}


def png_bytes(width, height, depth=8, colour=2, rows=b"", extra=()):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def png_of_uint16(array, colour, extra=()):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    return png_bytes(array.shape[1], array.shape[0], 16, colour, rows, extra)


def tiff_of_uint16(array, orientation):
    height, width, _ = array.shape
    pixels = array.astype("<u2").tobytes()
    end = 8 + len(pixels)
    long = [(273, 8), (279, len(pixels))]
    short = [(256, width), (257, height), (259, 1), (262, 2), (274, orientation), (277, 3), (278, height)]
    entries = [(258, 3, 3, end), *((tag, 4, 1, v) for tag, v in long), *((tag, 3, 1, v) for tag, v in short)]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    head = struct.pack("<2sHI", b"II", 42, end + 6) + pixels + struct.pack("<3H", 16, 16, 16)
    return head + struct.pack("<H", len(entries)) + directory + bytes(4)


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def upright(stored, orientation):
    """Put every stored pixel where the standard says that its row and column lie."""
    rows, columns = stored.shape[:2]
    first, second = SIDES[orientation]
    height, width = (rows, columns) if first in "TB" else (columns, rows)
    result = np.zeros((height, width, *stored.shape[2:]), stored.dtype)
    for r in range(rows):
        for c in range(columns):
            at = {}
            for side, index in ((first, r), (second, c)):
                axis, length = ("y", height) if side in "TB" else ("x", width)
                at[axis] = index if side in "TL" else length - 1 - index
            result[at["y"], at["x"]] = stored[r, c]
    return result


def over_black(rgb, alpha):
    return np.rint(rgb.astype(float) * alpha[..., None] / 255)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
@pytest.mark.parametrize("array", [GREY, RGB], ids=["grey", "rgb"])
def test_eight_bit_is_read_as_it_is(tmp_path, suffix, array):
    Image.fromarray(array).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert np.array_equal(image, array if array.ndim == 3 else np.stack([array] * 3, axis=2))
    assert np.array_equal(read_image(str(tmp_path / f"a.{suffix}")), image)


def test_jpeg_is_what_pil_decodes(tmp_path):
    for name, array in (("g.jpg", GREY), ("c.JPEG", RGB)):
        Image.fromarray(array).save(tmp_path / name, format="JPEG")
        assert np.array_equal(
            read_image(tmp_path / name), np.asarray(Image.open(tmp_path / name).convert("RGB"))
        )
    cmyk = RNG.integers(0, 256, (1, 1, 4)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    Image.fromarray(cmyk, mode="CMYK").save(tmp_path / "k.jpg", quality=100)
    inks = np.asarray(Image.open(tmp_path / "k.jpg")).astype(float)
    light = (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
    assert np.abs(read_image(tmp_path / "k.jpg") - light).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_uses_the_full_range(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), WIDE[..., ::-1])
    assert np.array_equal(read_image(path), (WIDE.astype(int) + 128) // 257)
    cv2.imwrite(str(path), WIDE[..., 0])
    assert np.array_equal(read_image(path)[..., 1], (WIDE[..., 0].astype(int) + 128) // 257)
    with_alpha = np.dstack([WIDE[..., ::-1], WIDE[..., 0]])
    cv2.imwrite(str(path), with_alpha)
    expected = WIDE.astype(float) * WIDE[..., :1] / 65535 / 257
    assert np.abs(read_image(path) - expected).max() <= 0.5 + 0.5 / 257


def test_sixteen_bit_grey_with_alpha_and_with_a_transparent_grey(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_of_uint16(WIDE[..., :2], colour=4))
    expected = WIDE[..., 0].astype(float) * WIDE[..., 1] / 65535 / 257
    assert np.abs(read_image(path)[..., 2] - expected).max() <= 0.5 + 0.5 / 257
    path.write_bytes(png_of_uint16(WIDE[..., 0], 0, [(b"tRNS", struct.pack(">H", int(WIDE[0, 0, 0])))]))
    assert np.array_equal(read_image(path)[..., 2], (WIDE[..., 0].astype(int) + 128) // 257)


def test_wide_tiff_is_scaled_by_its_type_and_refused_beyond(tmp_path):
    path, unit = tmp_path / "a.tiff", RNG.random((5, 6), np.float32)
    Image.fromarray(unit).save(path)
    assert np.abs(read_image(path)[..., 0] - unit * 255.0).max() <= 0.5 + 1e-4
    Image.fromarray(WIDE[..., 0].astype(np.int32)).save(path)
    assert np.array_equal(read_image(path)[..., 0], (WIDE[..., 0].astype(int) + 128) // 257)
    for bad in (unit + 1, unit * np.float32("nan"), unit.astype(np.int32) + 70000, unit.astype(np.int32) - 1):
        Image.fromarray(bad).save(path)
        with pytest.raises(DataError, match=r"a\.tiff: .*save it as 8 or 16 bit"):
            read_image(path)


def test_alpha_is_over_black(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([RGB, ALPHA])).save(path)
    assert np.abs(read_image(path) - over_black(RGB, ALPHA)).max() <= 0.5
    Image.fromarray(np.dstack([GREY, ALPHA]), mode="LA").save(path)
    assert np.abs(read_image(path) - over_black(GREY[..., None].repeat(3, 2), ALPHA)).max() <= 0.5
    Image.fromarray(RGB).save(path, transparency=tuple(int(v) for v in RGB[2, 3]))
    expected = np.where((RGB[2, 3] == RGB).all(axis=2, keepdims=True), 0, RGB)
    assert np.array_equal(read_image(path), expected)


def test_palette_and_one_bit(tmp_path):
    path, index = tmp_path / "a.png", RNG.integers(0, 5, (13, 19), dtype=np.uint8)
    palette = RNG.integers(0, 256, (5, 3), dtype=np.uint8)
    image = Image.fromarray(index, mode="P")
    image.putpalette(palette.tobytes())
    image.save(path)
    assert np.array_equal(read_image(path), palette[index])
    opacity = np.array([0, 60, 128, 255, 255], np.uint8)
    image.save(path, transparency=opacity.tobytes())
    assert np.abs(read_image(path) - over_black(palette[index], opacity[index])).max() <= 0.5
    for name in ("b.png", "b.bmp", "b.tiff"):
        Image.fromarray(GREY > 99).save(tmp_path / name)
        assert np.array_equal(read_image(tmp_path / name)[..., 2], (GREY > 99) * 255)


@pytest.mark.parametrize("orientation", SIDES)
def test_exif_orientation(tmp_path, orientation):
    for suffix in ("png", "tiff"):
        Image.fromarray(RGB).save(tmp_path / f"a.{suffix}", exif=exif(orientation))
        assert np.array_equal(read_image(tmp_path / f"a.{suffix}"), upright(RGB, orientation))
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif(orientation))
    plain = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert np.array_equal(read_image(tmp_path / "a.jpg"), upright(plain, orientation))
    (tmp_path / "wide.tiff").write_bytes(tiff_of_uint16(WIDE, orientation))
    assert np.array_equal(
        read_image(tmp_path / "wide.tiff"), upright((WIDE.astype(int) + 128) // 257, orientation)
    )
    tag = exif(orientation).tobytes().removeprefix(b"Exif\0\0")
    (tmp_path / "wide.png").write_bytes(png_of_uint16(WIDE, 2, [(b"eXIf", tag)]))
    assert np.array_equal(
        read_image(tmp_path / "wide.png"), upright((WIDE.astype(int) + 128) // 257, orientation)
    )


def test_names_and_the_smallest_image(tmp_path):
    for name in ("größe 1 µm.png", "图像.png", " .png", "100%{x}.png"):
        assert read_image(write_png(tmp_path / name, RGB[:1, :1])).tolist() == RGB[:1, :1].tolist()


def test_threads_read_the_same(tmp_path):
    paths = [write_png(tmp_path / f"{i}.png", np.roll(RGB, i, axis=0)) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for i, image in enumerate(pool.map(read_image, paths)):
            assert np.array_equal(image, np.roll(RGB, i, axis=0))


def broken_files():
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, kind)
        yield pytest.param(buffer.getvalue()[: len(buffer.getvalue()) // 2], "", id=f"half a {kind}")
    yield pytest.param(tiff_of_uint16(WIDE, 1)[:60], "", id="cut 16 bit TIFF")
    yield pytest.param(png_of_uint16(WIDE, 2)[:300], "", id="cut 16 bit PNG")
    yield pytest.param(b"", "0 bytes", id="empty")
    yield pytest.param(b"GIF89a" + bytes(40), "no PNG, JPEG", id="another format")
    yield pytest.param(RNG.bytes(999), "no PNG, JPEG", id="garbage")
    yield pytest.param(
        png_bytes(60000, 60000), "60000 x 60000 pixels, above data.max_megapixels=100", id="absurd size"
    )
    yield pytest.param(png_bytes(0, 9), "", id="no width")
    yield pytest.param(png_bytes(9, 0), "", id="no height")


@pytest.mark.parametrize(("data", "reason"), list(broken_files()))
@pytest.mark.parametrize("read", [read_image, lambda path: read_mask(path, (64, 64))], ids=["image", "mask"])
def test_a_broken_file_is_one_line_with_its_path(tmp_path, data, reason, read):
    path = tmp_path / "broken.png"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert message.endswith("; replace the file or take it out of the data set")
    assert "\n" not in message
    assert "BytesIO" not in message


@pytest.mark.parametrize("read", [read_image, content_hash, lambda path: read_mask(path, (1, 1))])
def test_a_missing_file_and_a_folder(tmp_path, read):
    with pytest.raises(DataError, match=r"none\.png: No such file or directory; "):
        read(tmp_path / "none.png")
    with pytest.raises(DataError, match=r": Is a directory; "):
        read(tmp_path)


def test_no_warning_of_pil_gets_out(tmp_path):
    """In a process of its own: pytest's filters stand before those of the package."""
    Image.fromarray(RGB).save(
        tmp_path / "odd.jpg", dpi=(0, 0), exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12\x01\x03\0"
    )
    with pytest.warns(UserWarning, match="EXIF"), Image.open(tmp_path / "odd.jpg") as image:
        image.getexif()
    (tmp_path / "large.png").write_bytes(png_bytes(12000, 10000))
    code = """if True:
        import sys; from pathlib import Path
        from anomaly_lab.data.images import read_image
        print(read_image(Path(sys.argv[1])).shape)
        try: read_image(Path(sys.argv[2]))
        except Exception as error: print(type(error).__name__, error)"""
    files = [str(tmp_path / "odd.jpg"), str(tmp_path / "large.png")]
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-W", "error::RuntimeWarning", "-c", code, *files],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stderr == ""
    shape, error = done.stdout.splitlines()
    assert shape == "(13, 19, 3)"
    assert error.startswith(f"DataError {files[1]}: it declares 12000 x 10000 pixels, above ")
    assert "; if it really has them, give data.max_megapixels=120; " in error


def test_a_key_sets_how_many_pixels_are_read(tmp_path):
    path = write_png(tmp_path / "a.png", RGB)
    assert np.array_equal(read_image(path, Reading(max_megapixels=RGB[..., 0].size / 1e6)), RGB)
    with pytest.raises(DataError, match=r"19 x 13 pixels, above data\.max_megapixels=0\.0002; .*pixels=1; "):
        read_image(path, Reading(max_megapixels=0.0002))
    path.write_bytes(png_bytes(20000, 20000))  # more than PIL allows by itself; it has no pixels
    with pytest.raises(DataError, match=r"a\.png: (?!.*(exceeds|max_megapixels))"):
        read_image(path, Reading(max_megapixels=400))


@pytest.mark.parametrize("white", [1, 2, 100, 255])
@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_a_mask_of_two_values(tmp_path, white, suffix):
    Image.fromarray((GREY > 99).astype(np.uint8) * white).save(tmp_path / f"m.{suffix}")
    mask = read_mask(tmp_path / f"m.{suffix}", GREY.shape)
    assert mask.dtype == bool
    assert np.array_equal(mask, GREY > 99)


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_a_sixteen_bit_mask(tmp_path, white):
    cv2.imwrite(str(tmp_path / "m.png"), (GREY > 99).astype(np.uint16) * white)
    assert np.array_equal(read_mask(tmp_path / "m.png", GREY.shape), GREY > 99)


def test_masks_of_classes_colours_soft_edges_and_nothing(tmp_path):
    path, classes = tmp_path / "m.png", RNG.integers(0, 9, (13, 19), dtype=np.uint8)
    assert np.array_equal(read_mask(write_png(path, classes), classes.shape), classes > 0)
    soft = np.minimum(GREY, 254)
    soft[0, 0] = 254
    assert np.array_equal(read_mask(write_png(path, soft), soft.shape), soft > 126)
    faint = np.minimum(GREY, 100)
    assert np.array_equal(read_mask(write_png(path, faint), faint.shape), faint >= 50)
    red = np.zeros((13, 19, 3), np.uint8)
    red[..., 0] = (GREY > 99) * 200
    assert np.array_equal(read_mask(write_png(path, red), GREY.shape), GREY > 99)
    Image.fromarray(np.dstack([red * 0 + 255, (GREY > 99).astype(np.uint8) * 255])).save(path)
    assert np.array_equal(read_mask(path, GREY.shape), GREY > 99)
    Image.fromarray(GREY > 99).save(path)
    assert np.array_equal(read_mask(path, GREY.shape), GREY > 99)
    assert not read_mask(write_png(path, np.zeros((13, 19), np.uint8)), (13, 19)).any()
    square = np.zeros((32, 32), bool)
    square[9:20, 5:21] = True
    Image.fromarray(square.astype(np.uint8) * 255).save(tmp_path / "m.jpg", quality=60)
    assert np.array_equal(read_mask(tmp_path / "m.jpg", (32, 32)), square)


def kinds(*values, dtype=np.uint8):
    """Return a mask of squares side by side, one a value, before 0, two of them with a corner in common."""
    mask = np.zeros((24, 24 * len(values)), dtype)
    for i, value in enumerate(values):
        mask[4:12, 24 * i + 4 : 24 * i + 14] = value
        mask[12:20, 24 * i + 14 : 24 * i + 20] = values[0]
    return mask


def test_a_mask_drawn_in_black_on_a_transparent_ground_is_its_opacity(tmp_path):
    shape = np.zeros((4, 6), bool)
    shape[1:3, 2:5] = True
    opacity = Image.fromarray(shape.astype(np.uint8) * 255)
    for mode, ground in (("RGBA", 0), ("RGBA", 255), ("LA", 0)):
        drawn = [Image.fromarray(np.where(shape, 0, ground).astype(np.uint8))] * (len(mode) - 1)
        Image.merge(mode, [*drawn, opacity]).save(tmp_path / "mask.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", (4, 6)), shape)
    turned = Image.Exif()
    turned[0x0112] = 3
    Image.merge("LA", [drawn[0], opacity]).save(tmp_path / "mask.png", exif=turned)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", (4, 6)), shape[::-1, ::-1])
    Image.new("RGBA", (6, 4), (0, 0, 0, 255)).save(tmp_path / "mask.png")
    assert not read_mask(tmp_path / "mask.png", (4, 6)).any()
    Image.fromarray(np.zeros((4, 6), np.float32)).save(tmp_path / "mask.tif")
    assert not read_mask(tmp_path / "mask.tif", (4, 6)).any()


@pytest.mark.parametrize("values", [(60, 255), (40, 80, 120), (1, 255), (10, 20, 30, 60, 90, 120, 200, 250)])
def test_kinds_of_defect_in_one_lossless_mask_are_all_defects(tmp_path, values):
    mask = kinds(*values)
    for name in ("m.png", "m.bmp", "m.tif"):
        Image.fromarray(mask).save(tmp_path / name)
        assert np.array_equal(read_mask(tmp_path / name, mask.shape), mask > 0)
    Image.fromarray(mask.astype(np.int32) * 200).save(tmp_path / "m.tif")
    assert np.array_equal(read_mask(tmp_path / "m.tif", mask.shape), mask > 0)
    palette = Image.fromarray(np.searchsorted((0, *values), mask).astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0] + [part for value in values for part in (value, 0, 0)])
    palette.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", mask.shape), mask > 0)


def test_edges_of_a_mask_are_soft_or_lossy(tmp_path):
    shape = np.zeros((96, 96), np.uint8)
    cv2.circle(shape, (48, 48), 30, 255, -1)
    soft = cv2.GaussianBlur(shape, (0, 0), 2)
    assert np.array_equal(read_mask(write_png(tmp_path / "m.png", soft), shape.shape), soft >= 128)
    for quality in (40, 75, 95):
        Image.fromarray(shape).save(tmp_path / "m.jpg", quality=quality)
        assert np.array_equal(read_mask(tmp_path / "m.jpg", shape.shape), shape > 0)
        Image.fromarray(shape).save(tmp_path / "m.tif", compression="jpeg", quality=quality)
        assert np.array_equal(read_mask(tmp_path / "m.tif", shape.shape), shape > 0)
    lossy = np.asarray(Image.open(tmp_path / "m.jpg"))
    assert np.array_equal(read_mask(write_png(tmp_path / "m.png", lossy), shape.shape), shape > 0)


def test_shares_in_a_mask_and_what_is_no_number(tmp_path):
    path, few = tmp_path / "m.tif", np.where(GREY > 99, 1, 0.2).astype(np.float32)
    for mask in (few, np.where(GREY > 199, 0, few), few / 2):
        Image.fromarray(mask).save(path)
        assert np.array_equal(read_mask(path, GREY.shape), mask >= mask.max() / 2)
    Image.fromarray(kinds(1, 2, 40, dtype=np.float32)).save(path)  # whole numbers are kinds
    assert np.array_equal(read_mask(path, (24, 72)), kinds(1, 2, 40) > 0)
    ground = np.where(GREY > 99, 255, 60).astype(np.uint8)  # two greys and no 0 are a ground and a defect
    assert np.array_equal(read_mask(write_png(tmp_path / "m.png", ground), GREY.shape), GREY > 99)
    Image.fromarray(few * np.float32("nan")).save(path)
    with pytest.raises(DataError, match=r"m\.tif: the mask has values that are no numbers; "):
        read_mask(path, GREY.shape)


def test_a_mask_of_another_size_names_both(tmp_path):
    path = write_png(tmp_path / "m.png", GREY)
    with pytest.raises(DataError, match=r"m\.png: the mask has .*\(13, 19\) but its image \(19, 13\); "):
        read_mask(path, (19, 13))
    Image.fromarray(GREY).save(path, exif=exif(6))
    assert read_mask(path, (19, 13)).shape == (19, 13)
