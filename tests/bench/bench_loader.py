"""Speed of the training loader: DRAEM's rotation and PerlinTexture, the demo's images at 256 x 256, batches of 8.

Run it with ``python -m tests.bench.bench_loader [TEXTURE FOLDER]``. First the parts of one image, in this process; then
the loader with one and two persistent workers of one thread each, after a warm-up epoch. Wanted: 200 images a second
from each worker. Beside wall time stands the workers' CPU time, which neighbours on a busy machine distort less.
"""

import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.utils.data import default_collate

from anomaly_lab.data.augment import Rotation
from anomaly_lab.data.datasets import AddressedSampler, as_tensor
from anomaly_lab.data.demo import Demo
from anomaly_lab.types import TrainBatch

EPOCHS, WANTED = 6, 200
CONF = Path(__file__).parents[2] / "conf" / "synthesis" / "perlin_texture.yaml"


def main(textures: str | None) -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as root:
        data = demo(root, textures)
        data.setup("fit")
    print(f"{len(data.train.images)} images of {data.train.images.shape[1:3]}\n")
    for name, milliseconds in stages(data).items():
        print(f"{milliseconds:8.3f} ms CPU an image  {name}")
    print()
    for workers in (1, 2):
        data.workers = workers
        before = cpu_of_children()
        rate = loaded(data)  # the workers end with it
        busy = (EPOCHS + 1) * len(data.train.records) / (cpu_of_children() - before)
        verdict = "" if rate >= WANTED * workers else f", below the wanted {WANTED * workers}"
        plural = "s" * (workers > 1)
        print(f"{rate:8.0f} images/s, {busy:.0f} in a CPU second  {workers} worker{plural}{verdict}")


def demo(root: str, textures: str | None) -> Demo:
    """Return the demo as conf/model/draem.yaml would have it."""
    return Demo(
        root=root,
        category="nut",
        image_size=256,
        center_crop=None,
        crop=None,
        fit="stretch",
        masks="auto",
        holdout=0.0,
        augment=Rotation(0.3, [-90, 90]),
        synthesis=instantiate(OmegaConf.load(CONF), textures=textures, _convert_="all"),
        sampling="replacement",
        batch_size=8,
        workers=0,
        memory_gb=4.0,
        seed=0,
    )


def stages(data: Demo) -> dict[str, float]:
    """Return the CPU milliseconds that an image takes, by stage."""
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        start = time.process_time()
        result = work(*arguments)
        spent[name] += time.process_time() - start
        return result

    draws = [draw for epoch in range(EPOCHS) for draw in addresses(data, epoch)]
    rows: list[TrainBatch] = []
    for draw in draws:
        rng = timed("random generator", np.random.default_rng, (0, draw.epoch, draw.position))
        clean = timed("augment", data.augment, data.train.images[draw.row], rng)
        image, mask = timed("synthesis", data.synthesis, clean, rng)
        tensors = timed("to tensors", lambda *arrays: [as_tensor(array) for array in arrays], image, clean)
        rows.append(TrainBatch(*tensors, torch.from_numpy(mask)))
        if len(rows) == data.batch_size:
            timed("collate", default_collate, rows)
            rows = []
    milliseconds = {name: 1000 * seconds / len(draws) for name, seconds in spent.items()}
    return milliseconds | {"altogether": sum(milliseconds.values())}


def addresses(data: Demo, epoch: int) -> AddressedSampler:
    """Return the draws of an epoch."""
    sampler = AddressedSampler(len(data.train.records), data.seed, data.sampling)
    sampler.set_epoch(epoch)
    return sampler


def cpu_of_children() -> float:
    """Return the CPU seconds of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def loaded(data: Demo) -> float:
    """Return images a second, over the epochs after the first."""
    loader, images = data.train_dataloader(), 0
    for epoch in range(EPOCHS + 1):
        if epoch == 1:
            start = time.perf_counter()
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            images += len(batch.image) * (epoch > 0)
    return images / (time.perf_counter() - start)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
