"""A test set made of held-out normals and the same normals with synthesised defects."""

from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from PIL import Image

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
