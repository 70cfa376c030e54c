"""The contact sheet of pseudo anomalies: its figures counted again, its pictures read, no test image."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from anomaly_lab.config.building import instantiate
from anomaly_lab.data.images import read_image
from anomaly_lab.data.registration import onto
from anomaly_lab.errors import ConfigError, DataError
from anomaly_lab.verbs import gallery as module
from anomaly_lab.verbs.gallery import COLUMNS, Example, sheet, work
from tests.support.runs import asked, composed, on_tree, options
from tests.support.trees import folder_tree, mvtec_tree, write_png

SMALL = ("data.image_size=[48,64]", "data.holdout=0", "data.augment=null")
CHEAP = {
    "perlin_texture": ["synthesis.num_procedural=13"],
    "perlin_texture_prff": ["synthesis.num_procedural=13"],
}
CHEAP["mix"] = ["synthesis.members.perlin_texture.num_procedural=13", "synthesis.weights.nsa=1"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=5, size=(48, 64))


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch):
    monkeypatch.setattr(module, "DRAWS", 30)


def shown(tree: Path, file: Path, synthesis: str, *overrides: str) -> None:
    given = (
        f"synthesis={synthesis}",
        *CHEAP.get(synthesis, []),
        *on_tree(tree),
        *SMALL,
        f"+gallery.file='{file}'",
    )
    work(asked(*given, *overrides))


def examples(monkeypatch, root: Path, *overrides: str) -> list[Example]:
    """Return all that a sheet of cutpaste would show, of each training image one or more."""
    seen: list[Example] = []
    with monkeypatch.context() as patch:
        patch.setattr(
            module, "sheet", lambda _, sections: seen.extend(*sections.values()) or Image.new("L", (1, 1))
        )
        shown(
            root, root / "sheet.png", "cutpaste", "+gallery.count=1000", "synthesis.probability=1", *overrides
        )
    return seen


def lying(index: int) -> np.ndarray:
    """Return a (48, 64, 3) uint8 photograph of a part that lies a little differently each time."""
    part = np.full((48, 64, 3), 20, np.uint8)
    part[14:34, 18:40] = (90, 150, 200)
    part[18:24, 22:30] = (240, 60, 30)
    turn = cv2.getRotationMatrix2D((32, 24), 6.0 * index, 1.0) + np.array([[0, 0, index], [0, 0, -index]])
    return cv2.GaussianBlur(cv2.warpAffine(part, turn, (64, 48), borderValue=(20, 20, 20)), (0, 0), 1)


@pytest.mark.parametrize("synthesis", [name for name in options("synthesis") if name != "none"])
def test_every_synthesis_is_shown_with_its_figures(synthesis, tree, tmp_path, capsys):
    shown(tree, tmp_path / "new" / "a.png", synthesis, "+gallery.count=3", "seed=4")
    title, *lines, file = capsys.readouterr().out.splitlines()
    assert title == f"synthesis={synthesis}  data=mvtec  part  48 x 64  seed 4"
    assert file == str(tmp_path / "new" / "a.png")
    kinds = ["cutpaste", "nsa", "perlin_texture", "mix"] if synthesis == "mix" else [synthesis]
    assert [line.partition(":")[0] for line in lines] == kinds
    for kind, line in zip(kinds, lines, strict=True):
        figures = re.fullmatch(
            r"\w+: (\d+) of 30 draws have a mask, area .* / (.*) / .* % \(10 %, median, 90 %\), "
            r"unchanged pixels in masks (.*) %",
            line,
        )
        assert 5 < int(figures[1]) <= 30
        assert 0 < float(figures[2]) < 50
        assert kind not in ("cutpaste", "nsa") or figures[3] == "0"
    with Image.open(file) as page:
        assert page.format == "PNG"
        assert page.size[0] > 2 * len(COLUMNS) * module.TILE
        assert page.size[1] > (3 if synthesis == "mix" else 1) * 2 * module.TILE * 48 / 64


def test_the_figures_are_those_of_the_draws(tree, tmp_path, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(
        module, "sheet", lambda title, sections: seen.extend(sections.values()) or Image.new("L", (1, 1))
    )
    shown(
        tree, tmp_path / "a.png", "perlin_texture", "+gallery.count=1000", "synthesis.texture_weight=[0,0.02]"
    )
    (examples,) = seen
    masks, changed = ([e.mask for e in examples], [(e.image != e.clean).any(2) for e in examples])
    unchanged = sum((m & ~c).sum() for m, c in zip(masks, changed, strict=True))
    share = 100 * unchanged / sum(m.sum() for m in masks)
    low, middle, high = (np.percentile([100 * mask.mean() for mask in masks], at) for at in (10, 50, 90))
    out = capsys.readouterr().out
    assert f"{len(examples)} of 30 draws have a mask, area {low:.2f} / {middle:.2f} / {high:.2f} %" in out
    assert f"unchanged pixels in masks {share:.3g} %\n" in out
    assert 1 < share < 100
    originals = {name.name: np.asarray(Image.open(name)) for name in (tree / "part/train/good").iterdir()}
    assert all(np.array_equal(example.clean, originals[example.name]) for example in examples)


def test_the_same_seed_gives_the_same_sheet(tree, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        shown(tree, tmp_path / f"{name}.png", "cutpaste", f"seed={seed}")
    pages = [np.asarray(Image.open(tmp_path / f"{name}.png"))[60:] for name in "abc"]
    assert np.array_equal(pages[0], pages[1])
    assert pages[0].shape != pages[2].shape or not np.array_equal(pages[0], pages[2])


def test_the_sheet_holds_the_pictures_themselves():
    side = module.TILE
    values = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype(np.uint8)
    mask = np.zeros((side, side), bool)
    mask[20:50, 30:90] = True
    image = np.where(mask[..., None], values[1], values[0])
    page = np.asarray(sheet("title", {"line": [Example("name.png", values[0], image, mask)] * 3}))
    places = [
        (y, x)
        for y, x in np.argwhere((page[: 1 - side, : 1 - side] == values[0][0, 0]).all(2))
        if np.array_equal(page[y : y + side, x : x + side], values[0])
    ]
    assert len(places) == 3
    for y, x in places:
        pictures = [page[y : y + side, x + k * (side + module.GAP) :][:, :side] for k in range(4)]
        assert np.array_equal(pictures[1], image)
        assert np.array_equal(pictures[2], np.repeat(mask[..., None] * np.uint8(255), 3, axis=2))
        assert pictures[3][mask].max() > 200
        assert pictures[3][~mask].max() < 10


def test_test_images_are_not_opened(tmp_path):
    root = mvtec_tree(tmp_path, train=4, size=(48, 64))
    shown(root, tmp_path / "a.png", "cutpaste")
    for file in (root / "part/test").rglob("*.png"):
        file.write_bytes(b"no image")
    shown(root, tmp_path / "b.png", "cutpaste")
    (root / "part/test").rename(root / "gone")
    shown(root, tmp_path / "c.png", "cutpaste")
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in "abc"}) == 1


def test_other_data_and_augmentation(tree, tmp_path, capsys, monkeypatch):
    folder = folder_tree(tmp_path / "photographs")
    names = [f"data.root='{folder}'", "data.category=x"]
    names += ["data.normal_train=[good]", "data.abnormal=[bad_dent]"]
    file = f"+gallery.file='{tmp_path}/a.png'"
    work(asked("synthesis=cutpaste", "data=folder", *names, "data.image_size=40", file))
    target = "_target_:anomaly_lab.data.augment.hierarchical.HierarchicalTransformation"
    copies = f"data.augment={{{target},depth:1,copies:2,families:[geometry],flip:false}}"
    assert "x  40 x 40" in capsys.readouterr().out
    originals = [read_image(file) for file in sorted((tree / "part/train/good").iterdir())]
    clean = [example.clean for example in examples(monkeypatch, tree, copies)]
    untouched = np.mean([any(np.array_equal(image, own) for own in originals) for image in clean])
    assert 1 / 6 < untouched < 1 / 2  # one of three: the first copy


@pytest.mark.parametrize("tests", ["there", "gone"])
def test_registration_is_onto_the_photograph_of_a_run(tests, tmp_path, monkeypatch):
    root = mvtec_tree(tmp_path, train=6, size=(48, 64))
    files = sorted((root / "part/train/good").iterdir())
    for index, file in enumerate(files):
        write_png(file, lying(index))
    given = ("data.register=true", "data.holdout=0.5", "seed=1")
    data = instantiate(composed("synthesis=cutpaste", *on_tree(root), *SMALL, *given).data, _convert_="all")
    first = data.roles["train"][0].image
    assert first != files[0]  # which is held out
    for file in (root / "part/test").rglob("*.png"):
        file.write_bytes(b"no image")
    if tests == "gone":
        (root / "part/test").rename(root / "gone")
        first = files[0]
    moved = {file.name: onto(read_image(first), read_image(file), None, file)[0] for file in files}
    found = examples(monkeypatch, root, *given)
    assert {example.name for example in found} == set(moved)
    assert all(np.array_equal(example.clean, moved[example.name]) for example in found)
    assert any((moved[file.name] != read_image(file)).any() for file in files)


@pytest.mark.parametrize(
    ("overrides", "error", "text"),
    [
        (["synthesis=none"], ConfigError, "synthesis=none: none of 30 draws has a mask; give"),
        (["synthesis.probability=0"], ConfigError, "none of 30 draws has a mask; give"),
        (
            ["+gallery.cuont=3"],
            ConfigError,
            r"gallery\.cuont is no key; there are gallery\.count and gallery\.",
        ),
        (["+gallery.count=0"], ConfigError, r"gallery\.count: 0; give a number"),
        (["+gallery.count=some"], ConfigError, r"gallery\.count: some; give a number"),
        (["+gallery.file=a.jpg"], ConfigError, r"gallery\.file: a\.jpg; .*\.png"),
        (["synthesis.area=[0.02]"], ConfigError, r"synthesis\.area"),
        (["synthesis.variant=scars"], ConfigError, r"synthesis\.variant"),
        (["data.category=nowhere"], DataError, "nowhere"),
    ],
)
def test_bad_input_is_one_line(overrides, error, text, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=text) as caught:
        work(asked("synthesis=cutpaste", *on_tree(tree), *SMALL, *overrides))
    cause = caught.value
    while cause and not isinstance(cause, error):
        cause = cause.__cause__
    assert cause
    assert "\n" not in str(cause)


def test_a_file_that_cannot_be_written(tree, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match=r"gallery\.file: .*taken/a\.png: .*; name another"):
        shown(tree, tmp_path / "taken" / "a.png", "cutpaste")


def test_the_command(tree, tmp_path, door, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["synthesis=cutpaste", "data=mvtec", f"data.root={tree}", "data.category=part", "gallery.count=2"]
    code, said, errors = door(["anomaly_lab", "gallery"], *given)
    assert (code, errors) == (0, "")
    assert re.search(rf"^cutpaste: \d+ of {module.DRAWS} draws have a mask", said, re.MULTILINE)
    assert said.splitlines()[-1] == "gallery-cutpaste-part-128x128-seed0.png"
    assert (tmp_path / "gallery-cutpaste-part-128x128-seed0.png").stat().st_size > 10_000


def test_help(door):
    code, said, _ = door(["anomaly_lab", "gallery"], "--help")
    assert code == 0
    assert all(word in said for word in ("gallery.count=8", "gallery.file=FILE", "synthesis=NAME"))
