"""A finished run, used from Python."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from anomaly_lab.config.building import instantiate
from anomaly_lab.config.checked import Checked
from anomaly_lab.config.kept import read_kept
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.geometry import resize_image
from anomaly_lab.data.images import Reading, read_image
from anomaly_lab.data.registration import onto
from anomaly_lab.errors import ConfigError, RunError, UserError, mendable
from anomaly_lab.evaluation.predictor import Predictor
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.runs.checkpoints import built_for
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.reading import one_line
from anomaly_lab.runs.shortage import is_of_memory
from anomaly_lab.types import Prediction


@final
class LoadedRun:
    """The method of a finished run with its weights, its geometry and its threshold.

    Attributes:
        threshold: the score above which an image is called anomalous; None if the run kept no normals for it.
    """

    def __init__(self, path: str | Path, allow: Sequence[str]) -> None:
        self.path = Path(path)
        directory = RunDirectory(self.path)
        if not directory.path.is_dir():
            raise RunError(f"{path}: no such folder, seen from {Path.cwd()}; give that of a finished run")
        manifest = directory.manifest()
        if manifest.get("status") != "done":
            status = one_line(manifest.get("status", "missing"))
            raise RunError(f"{path}: is no finished run (status {status}); give the folder of one")
        try:
            self._open(directory, manifest, allow)
        except RunError:
            raise
        except Exception as error:  # a damaged folder, or a stranger's, raises almost anything
            cause = mendable(error)
            if isinstance(cause, RunError):
                raise cause from None
            reason = one_line(cause or error, 1000)
            made = f"it was made at commit {one_line(manifest.get('git_commit')):.8}"
            misfit = isinstance(error, ConfigError | InstantiationException)
            what = "its config does not fit this version of anomaly_lab" if misfit else "cannot be loaded"
            said = reason if misfit else f"{type(error).__name__}: {reason}"
            raise RunError(f"{path}: {what} ({said}); {made}") from error

    def _open(self, directory: RunDirectory, manifest: dict[str, Any], allow: Sequence[str]) -> None:
        cfg: Any = read_kept(directory.path / "config.yaml")
        cfg.data.synthesis = cfg.synthesis = {"_target_": "anomaly_lab.synthesis.none.NoSynthesis"}
        # Before anything is built, as the folder may be a stranger's.
        checked = Checked.of(cfg, allow)
        for leaf in checked.leaves:
            if leaf.pretrained:  # the weights of the run replace them, and their file may be gone
                OmegaConf.update(cfg, leaf.path, "random")
            elif leaf.path.endswith("cache.gigabytes"):
                OmegaConf.update(cfg, leaf.path, 0)
        data: AnomalyDataModule = instantiate(cfg.data, _convert_="all")
        data.crop_box = manifest["crop_box"]
        if data.crop_box is None and data.crop is not None:  # looking for it would list, even draw, the data
            raise ConfigError(f"manifest.json has no crop_box for data.crop={data.crop}")
        self.geometry = data.geometry()
        self.reading = Reading(manifest["white"], data.max_megapixels)
        self.reference = _reference(directory.path / "reference.npz") if data.register else None
        build = partial(instantiate, cfg.model, _convert_="all")
        weights = (directory.checkpoint, manifest["training_hash"])
        # One's own code is trusted, and need not build without memory.
        outline = None if checked.own_modules else self._check_size
        self.method = built_for(build, *weights, outline=outline)
        self._check_size(self.method)
        self.method.eval()
        self.bf16 = cfg.trainer.precision == "bf16-mixed"
        self.threshold: float | None = directory.metrics().get("threshold")

    def _check_size(self, method: AnomalyMethod) -> None:
        method.check_size(*self.geometry.size)

    def read(self, path: str | Path) -> np.ndarray:
        """Return a photograph, (h, w, 3) uint8 RGB, with the white value of the run's own images.

        Raises:
            DataError: it cannot be read.
        """
        return read_image(path, self.reading)

    def predict(self, arrays: Sequence[np.ndarray], batch_size: int = 8) -> Prediction:
        """Score (h, w, 3) uint8 RGB photographs of any sizes, on the device that ``method`` is on.

        Returns:
            Maps (N, H, W) at the network's resolution and scores (N,), float32 on the CPU.

        Raises:
            ValueError: an array has another shape or dtype.
            RunError: the method cannot score them: memory ends, or weights and config are of different runs.
        """
        if not len(arrays):
            raise ValueError("there is no array to score")
        device = self.method.device
        predictor = Predictor(
            self.method, device, lambda: torch.autocast(device.type, torch.bfloat16, enabled=self.bf16)
        )
        predictions = []
        for start in range(0, len(arrays), batch_size):
            few = arrays[start : start + batch_size]
            for array in few:
                _check_array(array)
            try:
                predictions.append(predictor([self._placed(array) for array in few]))
            except UserError:
                raise
            except Exception as error:  # weights of other sizes than the config's raise almost anything
                size = "{} x {}".format(*self.geometry.size)
                said = f"{type(error).__name__}: {one_line(error)}"
                way_out = "its config.yaml and model.ckpt may be of different runs"
                if is_of_memory(error) and len(few) > 1:
                    way_out = f"give predict a smaller batch_size, now {batch_size}"
                raise RunError(
                    f"{self.path}: cannot score images of {size} pixels ({said}); {way_out}"
                ) from error
        return Prediction(*(torch.cat(values) for values in zip(*predictions, strict=True)))

    def _placed(self, array: np.ndarray) -> np.ndarray:
        if self.reference is not None:
            array = onto(self.reference, array, None, "the array")[0]
        return resize_image(array, self.geometry.place((array.shape[0], array.shape[1])), self.geometry)


def _check_array(array: object) -> None:
    if not isinstance(array, np.ndarray):
        kind = type(array).__name__
        raise TypeError(f"want a list of (h, w, 3) uint8 RGB arrays, not of {kind}; see read_image")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"want (h, w, 3) uint8 RGB arrays, got {array.shape} {array.dtype}")


def _reference(file: Path) -> np.ndarray:
    with np.load(file, allow_pickle=False) as kept:
        image: np.ndarray = kept["image"]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise RunError(f"{file}: holds no (h, w, 3) uint8 photograph, but {image.shape} {image.dtype}")
    return image
