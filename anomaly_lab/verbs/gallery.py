"""Show pseudo anomalies: ``python -m anomaly_lab gallery synthesis=nsa data=mvtec data.root=DIR ...``.

Writes a contact sheet of training images (those held out among them), the pseudo anomalies made of them,
the masks and the changes, and prints figures of 200 draws of each kind. Size, augmentation and randomness are
what model=, data.* and seed= say, as in a run; the share of images that stay normal, too. No test image is
opened.

  gallery.count=8     how many pseudo anomalies of each kind are shown
  gallery.file=FILE   where they go, a PNG file; else gallery-SYNTHESIS-CATEGORY-HEIGHTxWIDTH-seedN.png

All other keys: python -m anomaly_lab --help synthesis=NAME data=NAME
"""

from collections.abc import Iterator, Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import open_dict
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from anomaly_lab.config.building import instantiate
from anomaly_lab.config.checked import Checked
from anomaly_lab.config.composing import Composition
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.batches import AddressedSampler, Draw, TrainDataset
from anomaly_lab.data.decoding import decode
from anomaly_lab.data.images import read_image
from anomaly_lab.data.registration import decode_registered
from anomaly_lab.errors import ConfigError, DataError
from anomaly_lab.pictures.sheets import colour
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.synthesis.mix import Mix
from anomaly_lab.types import ImageRecord

DRAWS = 200
BRIGHT = 64  # a change by so many of 255 grey levels, in any channel, is drawn as bright as can be
COLUMNS = ("training image", "pseudo anomaly", "mask", f"change (bright: {BRIGHT} of 255)")
# pixels
TILE = 192
GAP = 4
MARGIN = 20
LINE = 20
WIDE = 1700
INK = (25, 25, 25)
GREY = (120, 120, 120)


class Example(NamedTuple):
    """A draw with a mask: (H, W, 3) uint8 images and the (H, W) bool mask."""

    name: str
    clean: np.ndarray
    image: np.ndarray
    mask: np.ndarray


class Kind(NamedTuple):
    """What the draws of one synthesizer came to."""

    examples: list[Example]  # the first ones that have a mask
    areas: np.ndarray  # (N,) float64, of every mask that is not empty, as a share of the image
    unchanged: np.ndarray  # (N,) float64, what did not change within it, as a share of the image

    def described(self) -> str:
        """Return the figures as a line."""
        line = f"{len(self.areas)} of {DRAWS} draws have a mask"
        if not len(self.areas):
            return line
        low, middle, high = 100 * np.quantile(self.areas, (0.1, 0.5, 0.9))
        share = 100 * self.unchanged.sum() / self.areas.sum()
        areas = f"area {low:.2f} / {middle:.2f} / {high:.2f} % (10 %, median, 90 %)"
        return f"{line}, {areas}, unchanged pixels in masks {share:.3g} %"


def work(asked: Composition) -> None:
    """Write the sheet and print the figures; ConfigError if there is nothing to show."""
    cfg = asked.cfg
    choices = asked.choices
    with open_dict(cfg):
        given = dict(cfg.pop("gallery", {}))
    Checked.of(cfg, cfg.get("allow") or (), None, asked.typed)
    name = choices["synthesis"]
    data: AnomalyDataModule = instantiate(cfg.data, _convert_="all")
    height, width = data.geometry().size
    shown, file = settings(given, f"gallery-{name}-{cfg.data.category}-{height}x{width}-seed{cfg.seed}.png")
    if data.synthesis.ratio == 0:
        raise ConfigError("synthesis.ratio: 0 makes no pseudo anomalies; give more, or null")
    kinds = draw(data, name, shown)
    title = (
        f"synthesis={name}  data={choices['data']}  {cfg.data.category}  {height} x {width}  seed {cfg.seed}"
    )
    lines = [f"{kind}: {found.described()}" for kind, found in kinds.items()]
    if not any(found.examples for found in kinds.values()):
        way_out = "give another synthesis, a higher synthesis.probability or a larger data.image_size"
        raise ConfigError(f"synthesis={name}: none of {DRAWS} draws has a mask; {way_out}")
    sections = {
        line: found.examples for line, found in zip(lines, kinds.values(), strict=True) if found.examples
    }
    save(sheet(title, sections), file)
    print("\n".join([title, *lines, str(file)]))


def settings(given: Mapping[str, Any], default: str) -> tuple[int, Path]:
    """Return gallery.count and gallery.file."""
    for key in given.keys() - {"count", "file"}:
        raise ConfigError(f"gallery.{key} is no key; there are gallery.count and gallery.file")
    values = {"count": 8, "file": default, **given}
    shown = values["count"]
    file = Path(str(values["file"])).expanduser()
    if type(shown) is not int or shown < 1:
        raise ConfigError(f"gallery.count: {shown}; give a number, at least 1")
    if file.suffix.lower() != ".png" or file.is_dir():
        raise ConfigError(f"gallery.file: {file}; give a file whose name ends in .png")
    return shown, file


def draw(data: AnomalyDataModule, name: str, shown: int) -> dict[str, Kind]:
    """Return what the synthesizer comes to, with ``shown`` examples.

    In a mix each member has them, and comes first.
    """
    records = data.records("train")
    if not records:
        raise DataError(f"{data.root}: category {data.category} has no training images")
    reading = data.reading_of([record.image for record in records])
    what = (records, data.geometry(), reading, data.memory_gb)
    if data.register:
        split = decode_registered(*what, read_image(first(data, records), reading))
    else:
        split = decode(*what)
    images = split.images
    data.synthesis.setup(list(images))
    mixed = data.synthesis.members if isinstance(data.synthesis, Mix) else {}
    wanted = {kind: (member, shown) for kind, member in mixed.items()} | {
        name: (data.synthesis, 0 if mixed else shown)
    }
    return {kind: drawn(data, records, images, member, most) for kind, (member, most) in wanted.items()}


def first(data: AnomalyDataModule, records: list[ImageRecord]) -> Path:
    """Return the photograph that a run registers to, the first one that is not held out.

    No test image is opened.
    """
    try:
        return data.roles["train"][0].image
    except DataError:  # without test images there is no run
        return records[0].image


def drawn(
    data: AnomalyDataModule,
    records: list[ImageRecord],
    images: np.ndarray,
    synthesis: Synthesizer,
    shown: int,
) -> Kind:
    """Draw as a training does, but that every draw goes to the synthesizer."""
    dataset = TrainDataset(images, data.augment, synthesis, data.seed)
    sampler = AddressedSampler(
        len(images) * (1 + (data.augment.copies if data.augment else 0)), data.seed, "shuffle"
    )
    examples = list[Example]()
    shares = list[tuple[float, float]]()
    for address in tqdm(islice(epochs(sampler), DRAWS), "drawing", DRAWS, leave=False, disable=None):
        batch = dataset[address]
        clean, image = (tensor.permute(1, 2, 0).numpy() for tensor in (batch.clean, batch.image))
        mask = batch.mask.numpy()
        if mask.any():
            shares.append((mask.mean(), (mask & (image == clean).all(2)).mean()))
            if len(examples) < shown:
                examples.append(Example(records[address.row % len(images)].image.name, clean, image, mask))
    areas, unchanged = np.array(shares).reshape(-1, 2).T
    return Kind(examples, areas, unchanged)


def epochs(sampler: AddressedSampler) -> Iterator[Draw]:
    """Yield the draws of one epoch after the other."""
    for epoch in count():
        sampler.set_epoch(epoch)
        yield from sampler


def sheet(title: str, sections: dict[str, list[Example]]) -> Image.Image:
    """Return the examples of each section side by side, as many as the page is wide, below its line."""
    height, width = next(iter(sections.values()))[0].mask.shape
    tile = (round(TILE * width / max(height, width)), round(TILE * height / max(height, width)))
    wide = len(COLUMNS) * (tile[0] + GAP)
    tall = tile[1] + LINE
    most = max(map(len, sections.values()))
    across = min(most, max(1, WIDE // (wide + MARGIN)))
    rows = sum(
        -(-len(examples) // across) * (tall + GAP) + 2 * LINE + MARGIN for examples in sections.values()
    )
    page = Image.new("RGB", (max(across * (wide + MARGIN) + MARGIN, 760), rows + LINE + 2 * MARGIN), "white")
    pen = ImageDraw.Draw(page)
    top = MARGIN
    pen.text((MARGIN, top), title, INK, ImageFont.load_default(16))
    top += LINE + MARGIN
    for line, examples in sections.items():
        pen.text((MARGIN, top), line, INK, ImageFont.load_default(14))
        for index, example in enumerate(examples):
            left = MARGIN + index % across * (wide + MARGIN)
            row = index // across
            if row == 0:
                for column, head in enumerate(COLUMNS):
                    pen.text(
                        (left + column * (tile[0] + GAP), top + LINE + 4),
                        head,
                        GREY,
                        ImageFont.load_default(12),
                    )
            exhibit(page, example, (left, top + 2 * LINE + row * (tall + GAP)), tile)
        top += -(-len(examples) // across) * (tall + GAP) + 2 * LINE + MARGIN
    return page


def exhibit(page: Image.Image, example: Example, corner: tuple[int, int], tile: tuple[int, int]) -> None:
    """Draw the four pictures of an example, its name and the area of its mask."""
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(11)
    (left, top) = corner
    change = np.abs(example.image.astype(int) - example.clean).max(2)
    pictures = (example.clean, example.image, example.mask.astype(np.uint8) * 255, colour(change, 0, BRIGHT))
    captions = (example.name[:30], "", f"{100 * example.mask.mean():.2f} %", "")
    for picture, caption in zip(pictures, captions, strict=True):
        page.paste(Image.fromarray(picture).resize(tile, Image.Resampling.BOX), (left, top))
        pen.text((left, top + tile[1] + 2), caption, GREY, font)
        left += tile[0] + GAP


def save(page: Image.Image, file: Path) -> None:
    """Write the page; make the folder."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        page.save(file)
    except OSError as error:
        raise ConfigError(f"gallery.file: {file}: {error.strerror or error}; name another file") from error
