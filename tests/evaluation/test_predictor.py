"""The predictor scores decoded images as a test does: in [0, 1], in eval mode, on the CPU, in any batches."""

from contextlib import contextmanager

import lightning as L
import numpy as np
import pytest
import torch

from anomaly_lab.evaluation.predictor import Predictor
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.types import Prediction

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 10, 3), dtype=np.uint8)


class Recorded(AnomalyMethod):
    """Scores by brightness, and keeps what it was given, and how."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen, self.states = [], []

    def forward(self, image):
        self.seen.append(image.clone())
        self.states.append(
            (self.training, torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
        )
        return Prediction(image.mean(1) * self.weight, image.amax((1, 2, 3)))

    def training_step(self, batch, batch_idx):
        """Learn nothing."""

    def panels(self, image):
        return {"twice": 2 * image, "half": image.mean(1).bfloat16() / 2}


@contextmanager
def full():
    yield


def predictor(precision=full) -> Predictor:
    return Predictor(Recorded().train(), torch.device("cpu"), precision)


@pytest.mark.parametrize("kind", [np.asarray, list], ids=["array", "list"])
def test_images_reach_the_method_in_the_unit_range(kind):
    predict = predictor()
    found = predict(kind(IMAGES))
    wanted = IMAGES.transpose(0, 3, 1, 2).astype(np.float32) / 255
    (image,) = predict.method.seen
    np.testing.assert_array_equal(image.numpy(), wanted)
    assert predict.method.states == [(False, True, False)]
    assert found.anomaly_map.shape == (7, 8, 10)
    assert found.anomaly_map.device.type == found.score.device.type == "cpu"
    np.testing.assert_allclose(found.anomaly_map.numpy(), wanted.mean(1), atol=1e-6)
    np.testing.assert_allclose(found.score.numpy(), wanted.max((1, 2, 3)))


def test_it_computes_in_the_precision_that_it_is_given():
    predict = predictor(lambda: torch.autocast("cpu", torch.bfloat16))
    predict(IMAGES)
    assert predict.method.states == [(False, True, True)]


@pytest.mark.parametrize(
    ("size", "rows"), [(3, [[0, 1, 2], [3, 4, 5], [6]]), (7, [[*range(7)]]), (9, [[*range(7)]])]
)
def test_batches_have_the_rows_in_order(size, rows):
    predict = predictor()
    found = list(predict.batches(IMAGES, size))
    assert [names for names, _ in found] == rows
    whole = predict(IMAGES)
    for index, name in enumerate(Prediction._fields):
        assert torch.equal(torch.cat([part[index] for _, part in found]), getattr(whole, name))
    assert list(predict.batches(IMAGES[:0], size)) == []


def test_panels_are_float32_on_the_cpu():
    found = predictor().panels(IMAGES)
    assert {name: (value.dtype, tuple(value.shape)) for name, value in found.items()} == {
        "twice": (torch.float32, (7, 3, 8, 10)),
        "half": (torch.float32, (7, 8, 10)),
    }
    np.testing.assert_allclose(found["twice"][2].numpy(), 2 / 255 * IMAGES[2].transpose(2, 0, 1), atol=1e-6)


def test_it_may_compute_as_a_trainer_does(tmp_path):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        accelerator="cpu",
        precision="bf16-mixed",
        default_root_dir=tmp_path,
        enable_model_summary=False,
        **quiet,
    )
    method = Recorded()
    Predictor.of(trainer, method)(IMAGES)
    assert method.states == [(False, True, True)]
    assert method.seen[0].dtype == torch.float32
