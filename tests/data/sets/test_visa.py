"""VisA: masks of several kinds of defect, and a csv as the split."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomaly_lab.data.images import read_mask
from anomaly_lab.data.sets.visa import VisA
from anomaly_lab.errors import DataError
from tests.support.data_modules import COMMON, SIZE, listed, read
from tests.support.trees import visa_tree


def visa(root: Path, **changes: Any) -> VisA:
    return VisA(**{**COMMON, "root": str(root), "category": "candle", **changes})


def test_masks_of_visa_hold_kinds_of_defect(tmp_path):
    for record in visa(visa_tree(tmp_path)).records("test")[3:]:
        values = read(record.mask)
        assert set(np.unique(values)) == {0, int(record.mask.stem) + 1, 9}
        assert np.array_equal(read_mask(record.mask, SIZE), values != 0)


def edited(root: Path, old: str, new: str) -> VisA:
    file = visa_tree(root) / "split_csv/1cls.csv"
    text = file.read_bytes().decode()
    assert old in text
    file.write_bytes(text.replace(old, new).encode())
    return visa(root)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n", "\r\n"),
        ("\n", "  \n"),
        (",", " , "),
        ("\n", "\n\n"),
        ("object,split", "\ufeffobject,split"),
        ("pcb4,train", "gadget,train"),  # an object that is not ours is not our business
    ],
    ids=["windows", "trailing", "spaces", "blank-lines", "byte-order-mark", "unknown-object"],
)
def test_how_the_csv_is_written_does_not_matter(old, new, tmp_path):
    expected = [r._replace(image=r.image.name) for r in visa(visa_tree(tmp_path / "a")).records("test")]
    found = [r._replace(image=r.image.name) for r in edited(tmp_path / "b", old, new).records("test")]
    assert [r[0::2] for r in found] == [r[0::2] for r in expected]
    assert [r.image.stem for r in edited(tmp_path / "b", old, new).records("train")] == [
        f"{i:04}" for i in (4, 1, 0, 2, 5, 3)
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "object,split,label,image,mask",
            "object,split,image,mask",
            r"has 'object,split,image,mask' where object,split,",
        ),
        (
            "0004.JPG,\n",
            "0004.JPG\n",
            r"has 'candle,train,normal,candle/.*0004\.JPG' where object,split,label,image,mask",
        ),
        ("candle,", "Candle,", r"has no rows of candle; there are: Candle, pcb4"),
        (
            "candle,test,anomaly",
            "candle,train,anomaly",
            r"has 'candle,train,anomaly,.*000\.png' \(3 such rows\), none of",
        ),
        (
            "0004.JPG,\n",
            "0004.JPG,candle/Data/Masks/Anomaly/000.png\n",
            r"has 'candle,train,normal,.*\(1 such rows\)",
        ),
        ("candle,test,normal", "candle,val,normal", r"has 'candle,val,normal,.*\(3 such rows\)"),
        (
            "Normal/0004.JPG",
            "Normal/0001.JPG",
            r"1cls\.csv: has 2 rows of candle/Data/Images/Normal/0001\.JPG; keep one",
        ),
        ("Normal/0004", "Normal/9", r"Normal/9\.JPG: is in 1cls\.csv but not there \(1 such files\); unpack"),
        (
            "Masks/Anomaly",
            "Masks/Bad",
            r"Bad/000\.png: is in 1cls\.csv but not there \(3 such files\); unpack",
        ),
    ],
)
def test_a_csv_that_does_not_fit_is_an_error_of_one_line(old, new, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        listed(edited(tmp_path, old, new))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("outside", ["../secret.JPG", "candle/../../secret.JPG", "/etc/secret.JPG"])
@pytest.mark.parametrize("old", ["candle/Data/Images/Normal/0004.JPG", "candle/Data/Masks/Anomaly/000.png"])
def test_a_csv_names_no_file_outside_of_the_data_set(old, outside, tmp_path):
    data = edited(tmp_path / "root", old, outside)
    (tmp_path / "secret.JPG").write_bytes(b"secret")
    message = rf"1cls\.csv: names '{outside}' \(1 such paths\); a path is relative to data\.root"
    with pytest.raises(DataError, match=message):
        listed(data)


def test_a_csv_that_is_missing_or_is_none(tmp_path):
    file = visa_tree(tmp_path) / "split_csv/1cls.csv"
    file.write_bytes(b"\xff\xfe\x00csv")
    with pytest.raises(
        DataError, match=r"1cls\.csv: cannot be read as a csv file; it comes with the archive"
    ):
        listed(visa(tmp_path))
    file.write_bytes(b"")
    with pytest.raises(
        DataError, match=r"1cls\.csv: has '' where object,split,label,image,mask are expected"
    ):
        listed(visa(tmp_path))
    file.unlink()
    with pytest.raises(
        DataError, match=r"1cls\.csv: no such file; .*github\.com/amazon-science/spot-diff\. For a tree"
    ):
        listed(visa(tmp_path))
