"""MLflow: what it was given is read back from the database and the folder that it wrote."""

import json
import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from anomaly_lab.errors import ConfigError, RunError
from anomaly_lab.training.loggers.mlflow import LIBRARIES, MLflow
from tests.support.boards import ADVICE, METRICS, SIZES, STEPS, Line, chosen, drawn, job, mirrors_of

# MLflow and SQLAlchemy each use what another of their libraries is about to drop.
BETWEEN_LIBRARIES = (":DeprecationWarning", ":FutureWarning")
pytestmark = [pytest.mark.filterwarnings(f"ignore:{one}") for one in (*ADVICE, *BETWEEN_LIBRARIES)]
installed = pytest.mark.skipif(
    any(find_spec(library) is None for library in LIBRARIES),
    reason="MLflow is not installed: pip install anomaly_lab[mlflow]",
)


def mirror(root: Path) -> MLflow:
    return chosen("mlflow", f"runs='{root}'")


def client(root: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{root}/mlflow/mlflow.db")


def runs(root: Path) -> list[Any]:
    (experiment,) = [one for one in client(root).search_experiments() if one.name == "anomaly_lab"]
    return client(root).search_runs([experiment.experiment_id])


@installed
def test_parameters_curve_metrics_tags_pictures_and_status_are_there(tmp_path, caplog):
    caplog.set_level(logging.INFO, "anomaly_lab")
    path, module = tmp_path / "run-01234567-seed3", Line()
    pictures = drawn(path)
    job(mirrors_of(path, group="prff_mvtec", mlflow=mirror(tmp_path)), module, METRICS, pictures)
    (run,) = runs(tmp_path)
    assert (run.info.status, run.info.run_name) == ("FINISHED", path.name)
    assert run.data.params["data/category"] == "nut"
    assert run.data.params["seed"] == "3"
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    assert tags == {
        "group": "prff_mvtec",
        "data": "mvtec",
        "category": "nut",
        "model": "draem_small",
        "seed": "3",
        "tag.line3": "",
        "parameters/total": str(SIZES[0]),
        "parameters/trainable": str(SIZES[1]),
    }
    assert {name: run.data.metrics[name] for name in METRICS} == METRICS
    assert 0 < run.data.metrics["seconds"] < 100
    history = client(tmp_path).get_metric_history(run.info.run_id, "loss/mse")
    assert [(one.step, one.value) for one in history] == list(enumerate(module.losses))
    assert len(history) == STEPS
    for picture in pictures:
        name = picture.file.relative_to(path).as_posix()
        got = client(tmp_path).download_artifacts(run.info.run_id, name)
        assert Path(got).read_bytes() == picture.file.read_bytes()
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("anomaly_lab")]
    assert said.endswith(f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow/mlflow.db")


@installed
def test_a_failed_run_is_marked_and_goes_on_under_its_id(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        job(mirrors_of(path, mlflow=mirror(tmp_path)), Line(breaks_at=2), METRICS)
    (run,) = runs(tmp_path)
    assert run.info.status == "FAILED"
    assert "image_auroc" not in run.data.metrics
    with mirrors_of(path, mlflow=mirror(tmp_path)).opened(SIZES):
        assert [run.info.status for run in runs(tmp_path)] == ["RUNNING"]
    (again,) = runs(tmp_path)
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")


@installed
def test_a_start_that_fails_early_marks_what_was_left_open(tmp_path):
    path = tmp_path / "run"
    with mirrors_of(path, mlflow=mirror(tmp_path)).opened(SIZES):
        left = json.loads((path / "dashboards.json").read_text())
    (path / "dashboards.json").write_text(json.dumps(left))
    with pytest.raises(RunError), mirrors_of(path, mlflow=mirror(tmp_path)).failing_early():
        raise RunError("no data")
    (run,) = runs(tmp_path)
    assert (run.info.run_id, run.info.status) == (left["mlflow"]["known_as"], "FAILED")


@installed
def test_a_store_that_lost_the_run_gets_another(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "dashboards.json").write_text(json.dumps({"mlflow": {"known_as": 32 * "a", "open": False}}))
    job(mirrors_of(path, mlflow=mirror(tmp_path)), Line(), METRICS)
    (run,) = runs(tmp_path)
    assert (run.info.status, run.data.params["seed"]) == ("FINISHED", "3")


@installed
def test_a_store_that_does_not_open_is_one_line(tmp_path):
    (tmp_path / "mlflow").write_text("no folder")
    with pytest.raises(RunError) as error, mirrors_of(tmp_path, mlflow=mirror(tmp_path)).opened(SIZES):
        raise AssertionError
    said = str(error.value)
    assert said.startswith("logger=mlflow: did not open (FileExistsError: ")
    assert said.endswith("; give logger=csv")
    assert "\n" not in said


@pytest.mark.parametrize("library", LIBRARIES)
def test_not_installed_is_one_line(monkeypatch, library):
    monkeypatch.setattr(
        "anomaly_lab.training.loggers.base.find_spec", lambda name: None if name == library else "there"
    )
    line = (
        rf"^logger=mlflow: {library} is not installed; pip install anomaly_lab\[mlflow\] or give logger=csv$"
    )
    with pytest.raises(ConfigError, match=line):
        MLflow(experiment="e", uri=None, folder="f")
    assert "mlflow" not in sys.modules or find_spec("mlflow")
