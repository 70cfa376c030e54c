"""Metrics of finished runs computed anew: from their kept scores, whole, with the old ones beside."""

import json
import shutil

import numpy as np
import pytest

from anomaly_lab.evaluation import definitions
from anomaly_lab.evaluation.metrics.curves import Curves
from anomaly_lab.report import rescoring, tables, texts
from anomaly_lab.report.beside import Papers
from anomaly_lab.report.found import found
from anomaly_lab.verbs.report import work
from tests.support.runs import asked, on_tree, ran
from tests.support.trees import mvtec_tree

QUICK = ("model=variation", "data.image_size=32", "evaluation.overlays=0", "evaluation.bootstrap=50")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs on a small tree, one with its maps kept, and the tree."""
    root = tmp_path_factory.mktemp("rescoring")
    tree = mvtec_tree(root / "tree")
    for more in ("evaluation.save_maps=true", "evaluation.save_maps=false"):
        ran(root, *on_tree(tree), *QUICK, more)
    return root


@pytest.fixture
def runs(made, tmp_path):
    """A copy of the runs, by whether their maps were kept; their data lie where they lay."""
    shutil.copytree(made / "runs", tmp_path / "runs")
    every = found(tmp_path / "runs").runs
    return {(run.path / "maps" / "maps.npz").is_file(): run for run in every}


def again(root):
    return {run.path: run for run in found(root / "runs").runs}


def changed(monkeypatch, *names):
    """Let these metrics have another definition: half of what they were."""
    versions = {**definitions.VERSIONS, **dict.fromkeys(names, 2)}
    for module in (definitions, rescoring):
        monkeypatch.setattr(module, "VERSIONS", versions)
    before = Curves.summary

    def summary(self, prefix, fpr_limit):
        values = before(self, prefix, fpr_limit)
        return {name: value / 2 if name in names else value for name, value in values.items()}

    monkeypatch.setattr(Curves, "summary", summary)


def test_a_run_keeps_the_versions_of_its_metrics_and_without_them_they_are_the_first(runs):
    for run in runs.values():
        manifest = json.loads((run.path / "manifest.json").read_text())
        assert manifest["metric_versions"] == definitions.VERSIONS
        assert set(definitions.VERSIONS) <= set(run.metrics)
    assert run.version("image_auroc") == run.version("unheard_of") == 1


def test_without_a_change_nothing_is_computed(runs):
    assert list(rescoring.rescored(list(runs.values()), ())) == []


def test_kept_scores_and_maps_give_the_very_metrics_of_the_run(runs, monkeypatch, tmp_path):
    """With a version raised and nothing else, every metric comes out as it was."""
    names = tuple(definitions.VERSIONS)
    versions = dict.fromkeys(names, 2)
    monkeypatch.setattr(rescoring, "VERSIONS", versions)
    monkeypatch.setattr(definitions, "VERSIONS", versions)
    curves = dict(np.load(runs[True].path / "curves.npz"))
    (line,) = rescoring.rescored([runs[True]], ())
    assert ": computed anew: " in line
    after = again(tmp_path)[runs[True].path]
    assert after.metrics == runs[True].metrics
    assert after.versions == versions
    kept = dict(np.load(runs[True].path / "curves.npz"))
    assert kept.keys() == curves.keys()
    assert all((kept[name] == curves[name]).all() for name in curves)


def test_a_changed_metric_is_written_with_what_it_was_and_the_others_stay(runs, monkeypatch, tmp_path):
    changed(monkeypatch, "pixel_aupro", "image_auroc")
    run = runs[True]
    (line,) = rescoring.rescored([run], ())
    was = run.metrics["pixel_aupro"]
    assert f"pixel_aupro {was:.4f} -> {was / 2:.4f}" in line
    after = again(tmp_path)[run.path]
    expected = {"pixel_aupro": was / 2, "image_auroc": run.metrics["image_auroc"] / 2}
    assert after.metrics == run.metrics | expected
    assert (after.version("pixel_aupro"), after.version("pixel_ap")) == (2, 1)
    manifest = json.loads((run.path / "manifest.json").read_text())
    (before,) = manifest["metrics_before"]
    assert before["metric_versions"] == run.versions
    assert before["metrics"].items() <= run.metrics.items()
    assert {"pixel_aupro", "image_auroc", "image_auroc_low"} <= before["metrics"].keys()
    assert list(rescoring.rescored([after], ())) == []


def test_one_that_was_killed_in_between_keeps_what_was_first(runs, monkeypatch, tmp_path):
    changed(monkeypatch, "image_auroc")
    run = runs[True]
    file = run.path / "manifest.json"
    noted = json.loads(file.read_text())
    first = {"metric_versions": run.versions, "metrics": {"image_auroc": run.metrics["image_auroc"]}}
    file.write_text(json.dumps(noted | {"metrics_before": [first]}))
    assert len(list(rescoring.rescored([run], ()))) == 1
    assert json.loads(file.read_text())["metrics_before"] == [first]
    assert again(tmp_path)[run.path].version("image_auroc") == 2


def test_without_maps_the_images_can_be_computed_and_pixels_not(runs, monkeypatch, tmp_path):
    run = runs[False]
    changed(monkeypatch, "image_ap")
    assert len(list(rescoring.rescored([run], ()))) == 1
    after = again(tmp_path)[run.path]
    assert after.metrics["image_ap"] == run.metrics["image_ap"] / 2
    monkeypatch.undo()
    changed(monkeypatch, "image_ap", "pixel_ap")
    files = {file: file.read_bytes() for file in run.path.glob("*.*")}
    (line,) = rescoring.rescored([after], ())
    assert line == (
        f"{run.path}: cannot be computed anew: no maps were kept for its pixel metrics; "
        "evaluation.save_maps=true keeps them"
    )
    assert {file: file.read_bytes() for file in files} == files


def damage(run, tree, kind):
    if kind == "data gone":
        shutil.move(tree / "part", tree / "away")
    elif kind == "data changed":
        (tree / "part" / "test" / "good" / "000.png").unlink()
    elif kind == "maps of another run":
        np.savez(run.path / "maps" / "maps.npz", **{"00000": np.zeros((32, 32), np.float32)})
    elif kind == "predictions":
        (run.path / "predictions.csv").write_text("path,score\n")
    elif kind == "config":
        file = run.path / "config.yaml"
        file.write_text(file.read_text().replace("anomaly_lab.data.sets.mvtec.MVTec", "os.system"))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("data gone", "part: "),
        ("data changed", "its data are not those of the run any more"),
        ("maps of another run", "has not a map for each of 6 test images"),
        ("predictions", "predictions.csv: is damaged, so no run can be scored anew from it"),
        ("config", "os.system"),
    ],
)
def test_of_a_run_that_cannot_be_computed_the_line_says_why_and_it_stays(
    tmp_path, runs, made, monkeypatch, kind, why
):
    run = runs[True]
    tree = tmp_path / "tree"
    shutil.copytree(made / "tree", tree)
    file = run.path / "config.yaml"
    file.write_text(file.read_text().replace(str(made / "tree"), str(tree)))
    damage(run, tree, kind)
    changed(monkeypatch, "pixel_aupro")
    (line,) = rescoring.rescored([run], ())
    assert line.startswith(f"{run.path}: cannot be computed anew: ")
    assert why in line
    assert again(tmp_path)[run.path].metrics == run.metrics


def test_a_run_whose_curves_are_gone_stays_as_it_is(runs, monkeypatch):
    run = runs[True]
    (run.path / "curves.npz").unlink()
    files = {file: file.read_bytes() for file in run.path.glob("*.*")}
    changed(monkeypatch, "image_auroc")
    (line,) = rescoring.rescored([run], ())
    assert line.startswith(f"{run.path}: cannot be computed anew: {run.path}/curves.npz: cannot be read (")
    assert {file: file.read_bytes() for file in files} == files


def test_what_cannot_be_computed_anew_keeps_its_definition(runs, monkeypatch, tmp_path):
    run = runs[True]
    file = run.path / "metrics.json"
    values = {"poisoned_image_auroc": 0.5, "pro_as_printed": run.metrics["pixel_auroc"]}
    file.write_text(json.dumps(run.metrics | values))
    changed(monkeypatch, "image_auroc", "pixel_auroc")
    (line,) = rescoring.rescored([again(tmp_path)[run.path]], ())
    assert line.endswith("; poisoned_* stay as they were")
    after = again(tmp_path)[run.path]
    assert (after.versions["image_auroc"], after.versions["poisoned_image_auroc"]) == (2, 1)
    assert after.metrics["pro_as_printed"] == after.metrics["pixel_auroc"] == run.metrics["pixel_auroc"] / 2
    (table,) = tables.tables([after], ["poisoned_image_auroc"])
    assert [cell.outdated for cell in table.cells.values()] == [True]


def test_tables_mark_numbers_of_an_older_definition_and_the_verb_mends_them(
    runs, monkeypatch, tmp_path, capsys
):
    changed(monkeypatch, "pixel_aupro")
    (table,) = tables.tables(found(tmp_path / "runs").runs, ["pixel_aupro"])
    cells = list(table.cells.values())
    assert [(cell.outdated, cell.versions) for cell in cells] == [(True, {("pixel_aupro", 1)})] * 2
    none = Papers([])
    assert texts.markdown(table, none).count("(1)‡") == 2
    assert r"(1)$^\ddagger$" in texts.latex(table, none)
    assert r"$^\ddagger$ pixel\_aupro: by definition 1, which is now 2; " in texts.latex(table, none)
    work(asked(f"runs='{tmp_path}/runs'", "+report.rescore=true", "+report.metrics=[pixel_aupro]"))
    said = capsys.readouterr().out
    assert ": computed anew: pixel_aupro " in said
    assert "no maps were kept" in said
    assert "- ‡ pixel_aupro: by definition 1, which is now 2" in said  # of the other run
    page = (tmp_path / "runs" / ".report" / "report.html").read_text()
    assert "‡ pixel_aupro: by definition 1" in page
    (table,) = tables.tables(found(tmp_path / "runs").runs, ["pixel_aupro"])
    assert sorted(cell.outdated for cell in table.cells.values()) == [False, True]
    rows = texts.as_csv([table], none).splitlines()
    assert sorted(row.split(",")[texts.HEADER.index("definition")] for row in rows[1:]) == ["1", "2"]
