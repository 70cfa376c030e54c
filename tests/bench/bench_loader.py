"""Speed of the training loader: DRAEM's rotation and PerlinTexture, the demo at 256 x 256, batches of 8.

    python -m tests.bench.bench_loader [--tiny] [TEXTURE FOLDER]

First the parts of one image, in this process; then the loader with one and two persistent workers of one
thread each, after a warm-up epoch. Wanted: 200 images a second from each worker. Beside wall time stands
the workers' CPU time, which neighbours on a busy machine distort less.
"""

import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import default_collate

from anomaly_lab.config.building import instantiate
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.batches import as_tensor
from anomaly_lab.types import TrainBatch
from tests.support.runs import composed, on_tree
from tests.support.trees import mvtec_tree

WANTED = 200


class Size(NamedTuple):
    """How much is measured."""

    overrides: Sequence[str]  # beside the recipe's
    epochs: int  # after the first
    workers: Sequence[int]


FULL = Size(("data=demo", "data.category=nut"), 6, (1, 2))
TINY = Size(("synthesis.num_procedural=13", "data.image_size=64"), 1, (1,))


def main(arguments: Sequence[str]) -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    size = TINY if "--tiny" in arguments else FULL
    with tempfile.TemporaryDirectory() as folder:
        data = recipe(Path(folder), size, [word for word in arguments if word != "--tiny"])
        data.setup("fit")
    print(f"{len(data.train.images)} images of {data.train.images.shape[1:3]}\n")
    for name, milliseconds in stages(data, size.epochs).items():
        print(f"{milliseconds:8.3f} ms CPU an image  {name}")
    print()
    for workers in size.workers:
        data.workers = workers
        before = cpu_of_children()
        rate = loaded(data, size.epochs)  # the workers end with it
        busy = (size.epochs + 1) * len(data.train.records) / (cpu_of_children() - before)
        verdict = "" if rate >= WANTED * workers else f", below the wanted {WANTED * workers}"
        plural = "s" * (workers > 1)
        print(f"{rate:8.0f} images/s, {busy:.0f} in a CPU second  {workers} worker{plural}{verdict}")


def recipe(folder: Path, size: Size, textures: Sequence[str]) -> AnomalyDataModule:
    """Return the data of conf/model/draem.yaml."""
    place = (
        on_tree(mvtec_tree(folder, train=16, size=(64, 64))) if size is TINY else [f"data.root='{folder}'"]
    )
    given = [f"textures='{Path(name).resolve()}'" for name in textures] or ["textures=procedural"]
    cfg = composed("model=draem", "data.workers=0", *size.overrides, *place, *given)
    data = instantiate(cfg.data, _convert_="all")
    assert isinstance(data, AnomalyDataModule)
    return data


def stages(data: AnomalyDataModule, epochs: int) -> dict[str, float]:
    """Return the CPU milliseconds that an image takes, by stage."""
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        start = time.process_time()
        result = work(*arguments)
        spent[name] += time.process_time() - start
        return result

    count = 0
    rows: list[TrainBatch] = []
    for epoch in range(epochs):
        data.order.set_epoch(epoch)
        for draw in data.order:
            count += 1
            rng = timed("random generator", np.random.default_rng, (0, draw.epoch, draw.position))
            clean = timed("augment", data.augment, data.train.images[draw.row], rng)
            image, mask = timed("synthesis", data.synthesis, clean, rng)
            tensors = timed(
                "to tensors", lambda *arrays: [as_tensor(array) for array in arrays], image, clean
            )
            rows.append(TrainBatch(*tensors, torch.from_numpy(mask), torch.tensor(data=False)))
            if len(rows) == data.batch_size:
                timed("collate", default_collate, rows)
                rows = []
    milliseconds = {name: 1000 * seconds / count for name, seconds in spent.items()}
    return milliseconds | {"altogether": sum(milliseconds.values())}


def cpu_of_children() -> float:
    """Return the CPU seconds of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def loaded(data: AnomalyDataModule, epochs: int) -> float:
    """Return images a second, over the epochs after the first."""
    loader, images = data.train_dataloader(), 0
    for epoch in range(epochs + 1):
        if epoch == 1:
            start = time.perf_counter()
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            images += len(batch.image) * (epoch > 0)
    return images / (time.perf_counter() - start)


if __name__ == "__main__":
    main(sys.argv[1:])
