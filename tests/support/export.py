"""A module as an ONNX graph."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

OLD = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14)


def exported(module: torch.nn.Module, image: torch.Tensor, file: Path) -> list[np.ndarray]:
    """Export for images of this shape, then run the graph on this one."""
    if OLD:
        pytest.skip("the exporter of torch 2.6 refuses these graphs, and those up to 2.13 were not tried")
    torch.onnx.export(module, (image,), file, dynamo=True, verbose=False, optimize=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image.numpy()})
