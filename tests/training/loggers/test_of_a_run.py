"""A run with all dashboards that are installed: each has what the run directory has."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from anomaly_lab.errors import DataError
from anomaly_lab.train import run
from anomaly_lab.training.loggers.mlflow import LIBRARIES
from tests.support.runs import asked, on_tree
from tests.support.trees import mvtec_tree
from tests.support.wandb_files import folders, offline, read  # noqa: F401 - a fixture

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("offline"),
    *(pytest.mark.filterwarnings(f"ignore{one}") for one in (":.*(LeafSpec|many workers)",)),
    *(pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")),
]
HAS_MLFLOW = all(find_spec(library) for library in LIBRARIES)
LOGGERS = ["csv", "wandb", "tensorboard", *(["mlflow"] if HAS_MLFLOW else [])]


def words(tmp_path: Path, *more: str) -> list[str]:
    data = on_tree(mvtec_tree(tmp_path / "data", train=4, good=4, bad=4))
    quick = ["data.image_size=64", "evaluation.overlays=3", "evaluation.bootstrap=10", "tags=[line3]"]
    loggers = f"logger=[{','.join(LOGGERS)}]"
    return [f"runs='{tmp_path}/runs'", "model=nearest", *data, *quick, loggers, *more]


def test_all_of_them_show_what_the_run_directory_has(tmp_path):
    done = run(asked(*words(tmp_path))._replace(group="july"))
    metrics = json.loads((done.path / "metrics.json").read_text())
    pictures = [*sorted((done.path / "maps").glob("*.png")), done.path / "figures" / "roc_pr.png"]
    assert len(pictures) == 4

    (folder,) = folders(done.path)
    content = read(folder)
    told = content["run"]
    assert (told.run_group, told.job_type, list(told.tags)) == ("july", "nearest", ["line3"])
    assert content["config"]["data"]["category"] == "part"
    assert content["config"]["choices"]["logger"] == ",".join(LOGGERS)
    assert {name: content["summary"][name] for name in metrics} == metrics
    assert content["exit_code"] == 0
    shown = [*content["summary"]["maps.filenames"], *content["summary"]["roc_pr.filenames"]]
    kept = {(folder / "files" / name).read_bytes() for name in shown}
    assert kept == {picture.read_bytes() for picture in pictures}
    assert all(" score " in caption for caption in content["summary"]["maps.captions"])
    table = json.loads((folder / "files" / content["summary"]["per_category.path"]).read_text())
    row = dict(zip(table["columns"], table["data"][0], strict=True))
    assert row == {"data": "mvtec", "category": "part", "model": "nearest", "seed": 0, **metrics}

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(done.path / "tensorboard")).Reload()
    assert {tag: events.Scalars(tag)[-1].value for tag in metrics} == pytest.approx(metrics, rel=1e-6)
    names = {f"maps/{file.stem}" for file in pictures[:-1]} | {"roc_pr"}
    assert set(events.Tags()["images"]) == names
    if HAS_MLFLOW:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow/mlflow.db")
        (there,) = client.search_runs([client.get_experiment_by_name("anomaly_lab").experiment_id])
        assert there.info.status == "FINISHED"
        assert {name: there.data.metrics[name] for name in metrics} == metrics
        artifacts = [
            one.path for name in ("maps", "figures") for one in client.list_artifacts(there.info.run_id, name)
        ]
        assert set(artifacts) == {file.relative_to(done.path).as_posix() for file in pictures}
    known = json.loads((done.path / "dashboards.json").read_text())
    assert list(known) == [name for name in LOGGERS if name in {"wandb", "mlflow"}]


def test_a_start_whose_data_are_gone_marks_what_a_killed_one_left_open(tmp_path):
    job = asked(*words(tmp_path, "logger=wandb"))
    done = run(job)
    manifest = json.loads((done.path / "manifest.json").read_text())
    (done.path / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    known = json.loads((done.path / "dashboards.json").read_text())
    (done.path / "dashboards.json").write_text(json.dumps({"wandb": {**known["wandb"], "open": True}}))
    shutil.rmtree(tmp_path / "data" / "part" / "train")
    shutil.rmtree(done.path / "wandb")
    with pytest.raises(Exception, match="train") as error:
        run(job)
    assert isinstance(error.value, DataError) or isinstance(error.value.__cause__, DataError)
    (folder,) = folders(done.path)
    content = read(folder)
    assert (content["run"].run_id, content["exit_code"]) == (known["wandb"]["known_as"], 1)
    assert json.loads((done.path / "dashboards.json").read_text()) == known
