"""A sweep as a whole: what runs, what is told, with which exit code; and again, what is missing alone."""

import json

from anomaly_lab.errors import DataError
from tests.sweeps.sweeping import directories, rows, runs, sweep  # noqa: F401 - fixtures


def exit_like_lightning() -> SystemExit:
    end = SystemExit(1)
    end.__context__ = KeyboardInterrupt()
    return end


def test_a_sweep_says_what_it_will_do_does_it_and_does_nothing_again(sweep, runs, capsys):  # noqa: F811
    assert sweep("seed=1,2", "data.category=part,other") == 0
    said = capsys.readouterr().out
    assert "sweep: 4 runs, all valid, 4 to do\n[1 of 4] model=nearest data=mvtec " in said
    assert runs == [("part", 1), ("other", 1), ("part", 2), ("other", 2)]
    assert sweep("seed=1,2,3", "data.category=part,other") == 0
    assert runs[4:] == [("part", 3), ("other", 3)]
    assert "sweep: 6 runs, all valid, 4 done, 2 to do" in capsys.readouterr().out


def test_the_table_has_a_row_a_configuration_with_its_spread_and_the_mean_of_whole_columns(sweep, capsys):  # noqa: F811
    assert sweep("seed=1,2", "data.category=part,other", "evaluation.overlays=1,2") == 0
    assert rows(capsys.readouterr().out, 7) == [
        ["data.category", "evaluation.overlays", "n", "image_auroc"],
        *[[category, k, "2", "0.150", "±", "0.071"] for category in ("part", "other") for k in "12"],
        *[["mean", "of", "2", k, "2", "0.150", "±", "0.071"] for k in "12"],
    ]


def test_a_failure_ends_no_sweep_is_kept_with_its_traceback_and_tried_again_if_asked_for(
    sweep,  # noqa: F811
    runs,  # noqa: F811
    capsys,
    tmp_path,
):
    runs.raises = {2: ValueError("a bug")}
    assert sweep("seed=1,2,3") == 1
    said = capsys.readouterr()
    assert [seed for _, seed in runs] == [1, 2, 3]
    assert rows(said.out, 2) == [["n", "image_auroc"], ["2", "0.200", "±", "0.141"]]
    assert said.err.rstrip().splitlines()[-2:] == [
        "ValueError: a bug",
        "anomaly_lab: 1 of 3 runs failed; retry=failed tries them again",
    ]
    (failed,) = [path for path in directories(tmp_path / "work") if path.name.endswith("seed2")]
    assert json.loads((failed / "manifest.json").read_text())["error"] == "ValueError: a bug"
    assert "Traceback" in (failed / "run.log").read_text()
    assert sweep("seed=1,2,3") == 1
    said = capsys.readouterr()
    assert "sweep: 3 runs, all valid, 2 done, 1 failed, 0 to do" in said.out
    assert said.err.splitlines()[0].endswith("seed2: failed before: ValueError: a bug")
    runs.raises = {}
    assert sweep("seed=1,2,3", "retry=failed") == 0
    assert [seed for _, seed in runs] == [1, 2, 3, 2]


def test_what_failed_before_it_began_needs_no_word_to_be_tried_again(sweep, runs, capsys):  # noqa: F811
    runs.early = {1: DataError("an image")}
    runs.raises = {2: ValueError("a bug")}
    assert sweep("seed=1,2", "data.category=part,other") == 1
    said = capsys.readouterr().err.splitlines()
    assert "anomaly_lab: 2 of 4 runs failed before they began; the same command tries them again" in said
    assert "anomaly_lab: 2 of 4 runs failed; retry=failed tries them again" in said


def test_what_is_done_from_other_data_is_told_and_left_alone(sweep, runs, capsys, tmp_path):  # noqa: F811
    assert sweep("seed=1,2") == 0
    for path in directories(tmp_path / "work"):
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps(manifest | {"data_fingerprint": "another"}))
    assert sweep("seed=1,2,3") == 1
    said = capsys.readouterr()
    assert [seed for _, seed in runs] == [1, 2, 3]
    assert "2 made from something else, 1 to do" in said.out
    assert said.err.count("data_fingerprint changed (another in the finished run") == 2


def test_done_runs_whose_data_are_gone_stay_in_the_table(sweep, runs, capsys, tmp_path):  # noqa: F811
    assert sweep("seed=1,2") == 0
    (tmp_path / "data").rename(tmp_path / "away")
    assert sweep("seed=1,2") == 1
    said = capsys.readouterr()
    assert "2 of 2 runs are done, but cannot be compared with their data: " in said.err
    assert "no such folder" in said.err
    assert rows(said.out, 1) == [["2", "0.150", "±", "0.071"]]


def test_a_damaged_run_is_told_and_the_others_are_done(sweep, runs, capsys, tmp_path):  # noqa: F811
    assert sweep("seed=1") == 0
    (done,) = directories(tmp_path / "work")
    (done / "manifest.json").write_text("{")
    assert sweep("seed=1,2") == 1
    assert "manifest.json: is damaged" in capsys.readouterr().err
    assert [seed for _, seed in runs] == [1, 2]
