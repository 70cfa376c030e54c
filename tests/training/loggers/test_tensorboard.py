"""TensorBoard: what it was given is read back from its event files."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from anomaly_lab.errors import ConfigError
from anomaly_lab.training.loggers.tensorboard import TensorBoard
from tests.support.boards import ADVICE, CONFIG, METRICS, STEPS, Line, chosen, drawn, job, mirrors_of

pytestmark = [pytest.mark.filterwarnings(f"ignore:{advice}") for advice in ADVICE]


def events(path: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(path / "tensorboard")).Reload()


def scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    found = events(path)
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]
    }


def text(found: Any, tag: str) -> str:
    (event,) = found.Tensors(f"{tag}/text_summary")
    return event.tensor_proto.string_val[0].decode()


def test_curves_metrics_texts_and_pictures_are_there(tmp_path):
    module, pictures = Line(), drawn(tmp_path)
    job(mirrors_of(tmp_path, tensorboard=chosen("tensorboard")), module, METRICS, pictures)
    curves = scalars(tmp_path)
    assert curves["loss/mse"] == [(step, pytest.approx(loss)) for step, loss in enumerate(module.losses)]
    assert {name: curves[name] for name in METRICS} == {name: [(STEPS, METRICS[name])] for name in METRICS}
    found = events(tmp_path)
    assert json.loads(text(found, "config")) == CONFIG
    summary = text(found, "summary").splitlines()
    assert summary[2:8] == [
        *("| data | mvtec |", "| category | nut |", "| model | draem_small |", "| seed | 3 |"),
        *("| parameters/total | 1000 |", "| parameters/trainable | 800 |"),
    ]
    assert summary[9:] == ["| image_auroc | 0.75 |", "| pixel_auroc | 0.5 |"]
    assert text(found, "captions").splitlines()[2:] == [
        "| maps/00-a | caption of maps/00-a / score 0.5 |",
        "| maps/01-b | caption of maps/01-b / score 0.5 |",
        "| roc_pr | caption of figures/roc_pr / score 0.5 |",
    ]
    assert found.Tags()["images"] == ["maps/00-a", "maps/01-b", "roc_pr"]
    for tag, picture in zip(found.Tags()["images"], pictures, strict=True):
        (image,) = found.Images(tag)
        (tmp_path / "back.png").write_bytes(image.encoded_image_string)
        with Image.open(tmp_path / "back.png") as back, Image.open(picture.file) as file:
            assert (back.size, back.tobytes()) == (file.size, file.tobytes())


def test_the_table_of_hyperparameters_has_the_config_and_the_metrics(tmp_path):
    from tensorboard.plugins.hparams import plugin_data_pb2

    job(mirrors_of(tmp_path, tensorboard=chosen("tensorboard")), Line(), METRICS)
    contents = events(tmp_path).summary_metadata
    kept = {tag: found.plugin_data.content for tag, found in contents.items() if "hparams" in tag}
    read = {
        tag.rpartition("/")[2]: plugin_data_pb2.HParamsPluginData.FromString(content)
        for tag, content in kept.items()
    }
    started = read["session_start_info"].session_start_info.hparams
    given = {key: value.string_value or value.number_value for key, value in started.items()}
    assert given == {
        "seed": 3.0,
        "tag": "run",
        "tags": '["line3"]',
        "entity": "null",
        "data": "mvtec",
        "category": "nut",
        "model": "draem_small",
        "data.category": "nut",
        "data.milestones": "[0.8, 0.9]",
    }
    assert {info.name.tag for info in read["experiment"].experiment.metric_infos} == set(METRICS)


def test_what_came_before_a_crash_is_kept(tmp_path):
    module = Line(breaks_at=3)
    with pytest.raises(ZeroDivisionError):
        job(mirrors_of(tmp_path, tensorboard=chosen("tensorboard")), module, METRICS)
    assert [step for step, _ in scalars(tmp_path)["loss/mse"]] == [0, 1, 2]
    assert not (tmp_path / "dashboards.json").exists()


def test_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    line = (
        r"^logger=tensorboard: tensorboard is not installed; "
        r"pip install anomaly_lab\[tensorboard\] or give logger=csv$"
    )
    with pytest.raises(ConfigError, match=line):
        TensorBoard()
