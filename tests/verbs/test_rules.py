"""What becomes of an anomaly on its way to the network, as `check` lists it and a run counts it."""

import numpy as np
import pytest

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.verbs.check import examine
from anomaly_lab.verbs.rules import Finding
from tests.support.data_modules import SIZE, mvtec, ready
from tests.support.trees import mvtec_tree, normal_image, write_png


@pytest.fixture
def root(tmp_path):
    return mvtec_tree(tmp_path / "data", train=16)


def found(data: AnomalyDataModule, level: str | None = None) -> list[Finding]:
    return [finding for finding in examine(data)[1] if level in (None, finding.level)]


def test_anomalies_that_the_network_cannot_see(root):
    """Half the size takes odd rows and columns, nearest to the new centres; the crop cuts columns 0 to 3."""
    for column, (name, row) in {0: ("edge", 1), 20: ("even", 20), 21: ("odd", 21)}.items():
        mask = np.zeros(SIZE, bool)
        mask[row, column] = True
        write_png(root / f"part/test/{name}/0.png", normal_image(SIZE, 70, row))
        write_png(root / f"part/ground_truth/{name}/0.png", mask)
    cut, lost = found(mvtec(root, image_size=[20, 24], center_crop=20), "warning")
    assert cut.text == "1 of 6 anomalies lie outside data.crop or data.center_crop"
    assert cut.files == [str(root / "part/test/edge/0.png")]
    assert lost.text.startswith("1 of 6 anomalies are too small for data.image_size")
    assert lost.files == [str(root / "part/test/even/0.png")]


def test_anomalies_that_the_network_sees_in_part(root):
    """One anomaly has a cropped half and a region that vanishes; each is said, by `check` and by a run."""
    mask = np.zeros(SIZE, bool)
    mask[10:20, 2:6] = True  # the crop cuts columns 0 to 3
    mask[30, 30] = True  # half the size takes the odd rows and columns
    write_png(root / "part/test/both/0.png", normal_image(SIZE, 70, 1))
    write_png(root / "part/ground_truth/both/0.png", mask)
    data = mvtec(root, image_size=[20, 24], center_crop=20)
    clipped, thinned = found(data, "warning")
    assert clipped.text == "1 of 4 anomalies lie partly outside data.crop or data.center_crop"
    assert thinned.text.startswith("1 of 4 anomalies have regions too small for data.image_size")
    assert clipped.files == thinned.files == [str(root / "part/test/both/0.png")]
    counts = ready(data).described()["counts"]
    assert (counts["masks_cut"], counts["masks_with_lost_regions"]) == (1, 1)
    cut, small = data.notes
    assert cut.startswith(
        "data.crop, data.center_crop: of 1 of 4 masks the crop cuts something away, of 0 everything, among"
    )
    assert small.startswith("data.image_size: of 1 of 4 masks 1 regions are too small to have a pixel, among")


def test_a_mask_is_looked_at_where_registration_brings_it(tmp_path):
    """Of a part that is turned by half, the marked corner lies inside the crop before, and outside after."""
    part = np.full((96, 96, 3), 60, np.uint8)
    part[25:70, 30:42] = 200
    part[58:70, 30:66] = 170
    for name in ("train/good/0", "train/good/1", "test/good/0"):
        write_png(tmp_path / f"part/{name}.png", part)
    write_png(tmp_path / "part/test/cut/0.png", part[::-1, ::-1])
    mask = np.zeros((96, 96), bool)
    mask[60:70, 60:66] = True
    write_png(tmp_path / "part/ground_truth/cut/0_mask.png", mask)
    how = {"image_size": 96, "crop": [0.5, 0.5, 0.5, 0.5]}
    texts = [finding.text for finding in found(mvtec(tmp_path, **how))]
    assert not [text for text in texts if "data.crop" in text]
    data = mvtec(tmp_path, register=True, **how)
    texts = [finding.text for finding in found(data)]
    assert "1 of 1 anomalies lie outside data.crop or data.center_crop" in texts
    assert ready(data).described()["counts"]["masks_cut"] == 1
    assert [note for note in data.notes if "of 1 of 1 masks the crop cuts something away, of 1 every" in note]
