"""Data modules on the trees of support.trees, every pixel as in the file unless a test says otherwise."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.sets.folder import Folder
from anomaly_lab.data.sets.mvtec import MVTec
from anomaly_lab.synthesis.none import NoSynthesis
from anomaly_lab.types import ImageRecord

SIZE = (40, 48)  # of the trees' images
COMMON: dict[str, Any] = {
    "category": "part",
    "image_size": SIZE,
    "center_crop": None,
    "crop": None,
    "fit": "stretch",
    "resize": "antialias",
    "register": False,
    "masks": "auto",
    "holdout": 0.0,
    "train_anomalies": 0,
    "augment": None,
    "synthesis": NoSynthesis(),
    "sampling": "shuffle",
    "batch_size": 4,
    "workers": 0,
    "white": "auto",
    "max_megapixels": 100.0,
    "memory_gb": 1.0,
    "seed": 3,
}
PARTS = {
    "normal_train": ["good"],
    "normal_test": [],
    "abnormal": ["bad_dent"],
    "test_share": 0.3,
    "mask_folder": "masks",
}


def mvtec(tree: Path, **changes: Any) -> MVTec:
    """Return the module of ``trees.mvtec_tree``."""
    return MVTec(**{**COMMON, "root": str(tree), **changes})


def parts(tree: Path, **changes: Any) -> Folder:
    """Return the module of ``trees.folder_tree``."""
    return Folder(**{**COMMON, **PARTS, "root": str(tree), **changes})


def ready(data: AnomalyDataModule) -> AnomalyDataModule:
    """Return it with its images decoded."""
    data.setup("fit")
    return data


def listed(data: AnomalyDataModule) -> dict[str, list[ImageRecord]]:
    """Return its records by their roles, which may raise."""
    return data.roles


def read(path: Path) -> np.ndarray:
    """Return an image's values as PIL has them."""
    return np.array(Image.open(path))
