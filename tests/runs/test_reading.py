"""Small files of a run directory: what is damaged, or never was one, is named in one line."""

import json
import logging
import os

import pytest

import anomaly_lab
from anomaly_lab.errors import RunError
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.reading import read_json
from anomaly_lab.runs.recording import finished


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


@pytest.mark.parametrize("doubts", [5, "a", {"a": 1}, None])
def test_doubts_that_are_no_list_are_one_line(doubts, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"status": "done", "doubts": doubts}))
    said = rf"^{tmp_path}/manifest\.json: is damaged \(doubts is no list\); remove the folder to run again$"
    with pytest.raises(RunError, match=said):
        finished(RunDirectory(tmp_path), before=True)


def test_what_a_strangers_files_say_is_nothing_that_a_terminal_obeys(tmp_path, caplog):
    directory = RunDirectory(tmp_path)
    directory.write_json("manifest.json", {"status": "done", "doubts": ["\x1b[31mred\x07\nx", 5]})
    with caplog.at_level(logging.INFO, "anomaly_lab"):
        assert finished(directory, before=True).doubts == ["?[31mred? x", "5"]
    assert "\x1b" not in caplog.text
    directory.write_json("manifest.json", {"status": "\x1b[31m"})
    with pytest.raises(RunError, match=r"is no finished run \(status \?\[31m\)"):
        anomaly_lab.load(tmp_path)
    directory.write_json("metrics.json", {"\x1b[31m": 1.0})
    with pytest.raises(RunError, match=r"metrics\.json: is damaged \(\?\[31m is no name\); remove"):
        directory.metrics()
