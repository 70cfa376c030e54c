"""A test set made of held-out normals and the same normals with synthesised defects."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_lab.config.building import instantiate
from anomaly_lab.errors import ConfigError
from tests.support.runs import checked, composed, ran
from tests.support.trees import mvtec_tree


@pytest.fixture
def overrides(tmp_path) -> list[str]:
    root = mvtec_tree(tmp_path / "data", train=10)
    places = [f"data.root='{root}'", "data.category=part", f"data.written='{tmp_path}/written'"]
    return ["model=nearest", "data=synthetic_defects", *places, "data.written_size=64", "data.test_share=0.3"]


def test_held_out_normals_are_tested_good_and_spoiled(overrides, tmp_path):
    checked(*overrides)
    metrics, _ = ran(tmp_path, *overrides)
    good = sorted((tmp_path / "written" / "part" / "good").glob("*.png"))
    spoiled = sorted((tmp_path / "written" / "part" / "synthetic").glob("*.png"))
    assert len(good) == 10
    assert spoiled
    for file in spoiled:
        stem = file.stem.rsplit("-", 1)[0]
        before = np.array(Image.open(next((tmp_path / "written" / "part" / "good").glob(f"{stem}-*.png"))))
        after = np.array(Image.open(file))
        mask = (
            np.array(Image.open(next((tmp_path / "written" / "part" / "mask").glob(f"{stem}-*.png"))))[..., 0]
            > 0
        )
        assert (before != after).any(axis=2)[~mask].sum() == 0
        assert (before != after).any()
    assert {"image_auroc", "pixel_aupro"} <= metrics.keys()
    assert not list(tmp_path.rglob("*.part"))


def test_training_sees_none_of_them_and_writing_again_changes_nothing(overrides, tmp_path):
    data = instantiate(composed(*overrides).data, _convert_="all")
    train = {record.image.stem for record in data.records("train")}
    test = data.records("test")
    assert not train & {record.image.stem for record in test}
    assert len([record for record in test if not record.label]) == 3
    assert len(train) == 7
    before = {record.image: record.image.read_bytes() for record in test}
    again = data.records("test")
    assert again == test
    assert all(record.image.read_bytes() == before[record.image] for record in again)


KINDS = {"png": {}, "tif": {"compression": "tiff_lzw"}}


@pytest.fixture(params=KINDS)
def of_12_bits(request, overrides, tmp_path) -> list[str]:
    """The photographs are grey, of 12 bits in files of 16, and of uneven sizes."""
    for number, file in enumerate(sorted((tmp_path / "data/part/train/good").iterdir())):
        rng = np.random.default_rng(number)
        values = np.linspace(0, 3000, 64 * 80).reshape(64, 80) + rng.integers(0, 90, (64, 80))
        values[5, 7] = 4095 - number
        kind = request.param
        Image.fromarray(values.astype(np.uint16)).save(file.with_suffix(f".{kind}"), **KINDS[kind])
        if kind != "png":
            file.unlink()
    return overrides


def test_photographs_of_12_bits_are_written_as_a_run_on_them_sees_them(of_12_bits, tmp_path):
    """Training images here are those of data=mvtec, and a spoiled copy differs by its defect alone."""
    wanted = [*of_12_bits, "data.image_size=64", "data.holdout=0"]
    data = instantiate(composed(*wanted).data, _convert_="all")
    data.setup("fit")
    places = [word for word in wanted if not word.startswith(("data=", "data.written", "data.test_share"))]
    source = instantiate(composed("data=mvtec", *places).data, _convert_="all")
    source.setup("fit")
    photographs = {record.image.stem: image for record, image in zip(*source.train[:2], strict=True)}

    def stem(record):
        return record.image.stem.rsplit("-", 1)[0]

    normal = [*zip(*data.train[:2], strict=True)]
    normal += [pair for pair in zip(*data.test[:2], strict=True) if not pair[0].label]
    assert len(normal) == 10
    for record, image in normal:
        assert np.array_equal(image, photographs[stem(record)])
        assert len(np.unique(image)) > 150  # of 256 grey levels; by 65535 they would be 17
    spoiled = [row for row in zip(*data.test[:3], strict=True) if row[0].label]
    assert spoiled
    for record, image, mask in spoiled:
        differs = (image != photographs[stem(record)]).any(axis=2)
        assert differs.any()
        assert not differs[~mask].any()
    assert data.described()["white"] == 4095
    assert data.notes == [
        "data.white: 4095 is white in files of more than 8 bits, found on the training images"
    ]


def test_the_white_that_was_given_is_the_photographs(of_12_bits):
    def darkest(white: str) -> float:
        data = instantiate(composed(*of_12_bits, f"data.white={white}").data, _convert_="all")
        data.setup("fit")
        assert data.reading.white == int(white)
        return data.train.images.mean()

    assert darkest("65535") == pytest.approx(darkest("4095") / 16, rel=0.1)


def test_a_share_that_is_none_is_named(overrides):
    with pytest.raises(ConfigError, match=r"data\.test_share=1\.5"):
        instantiate(composed(*overrides, "data.test_share=1.5").data, _convert_="all").records("test")


def test_an_interrupt_while_a_picture_is_written_leaves_nothing(overrides, tmp_path, monkeypatch):
    def interrupted(part: Path, _: Path) -> None:
        assert part.suffix == ".part"
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        instantiate(composed(*overrides).data, _convert_="all").records("test")
    assert [path for path in (tmp_path / "written").rglob("*") if path.is_file()] == []
