"""Small files of a run directory: what is damaged, or never was one, is named in one line."""

import json
import os

import pytest

from anomaly_lab.errors import RunError
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.reading import read_json


@pytest.mark.parametrize(
    "content",
    [
        b"null",
        b"[1]",
        b'"done"',
        b"\xff\xfe",
        b"",
        b"\0" * 100,
        b'{"status": "do',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' * 50_000,
        b'{"a": "' + b"x" * 2**18 + b'"}',
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_mapping_of_plain_values_is_one_line(content, tmp_path):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(RunError, match=rf"^{tmp_path}/manifest\.json: ") as caught:
        RunDirectory(tmp_path).manifest()
    assert "\n" not in str(caught.value)


def test_what_is_no_plain_file_is_one_line_and_nothing_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for name in ("pipe", "folder", "device", "nowhere"):
        with pytest.raises(RunError, match=f"{name}: is no file"):
            read_json(tmp_path / name)
    assert read_json(tmp_path / "gone") == {}


@pytest.mark.parametrize("value", ["x", None, [1.0], {}, True, int("9" * 400)])
def test_metrics_that_are_no_numbers_are_one_line(value, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"image_ap": 1, "image_auroc": value}))
    with pytest.raises(RunError, match=r"metrics\.json: is damaged \(image_auroc is no number\); remove"):
        RunDirectory(tmp_path).metrics()


def test_a_failure_that_was_kept_with_line_ends_is_shown_as_one_line(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.write_json("manifest.json", {"status": "failed", "error": "a\nb"})
    with pytest.raises(RunError, match=r"failed before \(a b\)"):
        directory.wants_a_run({}, retry=False)
