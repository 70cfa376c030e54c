"""Why VT-ADL's reconstruction is one mean picture: ``python -m tests.mean_picture FOLDER [--real DIR]``.

Trains the small recipe in variants that change one thing each, on the training images of DIR's categories,
and measures on normal images that were held out of training, never on a test image. It prints tables in
Markdown.
What is done is not done again, so it may be broken off; --seconds N begins nothing after N seconds, --steps
N makes trainings of other lengths than 300, with 0 only how they start. Without --real the pictures are those
of data=demo.
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor

from anomaly_lab.config.building import built
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.methods.vt_adl.method import VtAdl
from anomaly_lab.types import TrainBatch, in_unit_range
from tests.support.runs import composed
from tests.support.train_batches import unlabelled
from tests.support.training import told

CATEGORIES = ["hazelnut_toy", "mvtec3d_tire_256"]
SQUASH = "model.bottleneck=squashed_linear"
PLAIN = "model.encoder.position_std=0"
QUIET = "model.latent_noise=0"
ALONE = "model.nll_weight=0"
SMALL = "model=vt_adl_small"
NORMED = "tokens normed"  # no key: a batch norm without weights before the projection, of this study alone
VARIANTS = {
    "linear": [SMALL],
    "squash": [SMALL, SQUASH],
    "linear, no noise, no likelihood": [SMALL, QUIET, ALONE],
    "linear, tokens normed": [SMALL, NORMED],
    "linear, a tenth of the rate": [SMALL, "model.learning_rate=1.0e-4"],
    "linear, positions from 0": [SMALL, PLAIN],
    "ae_mse_small": ["model=ae_mse_small"],
    "squash, tokens normed": [SMALL, SQUASH, NORMED],
    "linear, no noise": [SMALL, QUIET],
    "linear, no likelihood": [SMALL, ALONE],
    "squash, positions from 0": [SMALL, SQUASH, PLAIN],
    "as released": ["model=vt_adl_released_small"],
    "linear, 4 times the steps": [SMALL],
    "squash, 4 times the steps": [SMALL, SQUASH],
}
SHORT, LONG = list(VARIANTS)[:-2], list(VARIANTS)[-2:]
# In the order in which they are worth the time.
PASSES = ((SHORT[:8], [0]), (SHORT[:4], [1, 2]), (LONG, [0]), (SHORT, [0, 1, 2]), (LONG, [1, 2]))
ORDER = list(dict.fromkeys((name, seed) for names, seeds in PASSES for seed in seeds for name in names))
AT = (0.25, 0.5, 1.0)  # shares of a training at which it is measured


class Found(NamedTuple):
    """What a reconstruction has of the images, each 0 for one and the same picture and 1 for the images."""

    variance: float  # of the reconstructions over images, the mean over pixels, over that of the images
    correlation: float  # of image and reconstruction, each less its mean over images; the mean over images
    explained: float  # 1 less the squared error over that of the mean training image; below 0 it is worse


def measured(images: Tensor, pictures: Tensor, mean: Tensor) -> Found:
    """Compare (N, 3, H, W) images with their reconstructions, and with a (3, H, W) mean picture; float64."""
    x, y = images.double().flatten(1), pictures.double().flatten(1)
    own, drawn = x - x.mean(0), y - y.mean(0)
    lengths = own.norm(dim=1) * drawn.norm(dim=1)
    correlation = (own * drawn).sum(1) / lengths.clamp(1e-12)
    error = (x - y).square().mean() / (x - mean.double().flatten()).square().mean()
    variance = drawn.square().mean() / own.square().mean()
    return Found(variance.item(), correlation.mean().item(), 1 - error.item())


def spread(vectors: Tensor) -> float:
    """Return the share of (N, D) vectors' mean square that is their variance over N."""
    vectors = vectors.double()
    return ((vectors - vectors.mean(0)).square().mean() / vectors.square().mean()).item()


def pull(method: VtAdl, images: Tensor) -> dict[str, float]:
    """Return how long the vector before a squash is, what it knows, and how the reconstruction pulls at it.

    ``images`` is the variance of the vector's entries over images, ``noise`` that which the noise of the
    tokens adds, ``kick`` how far Adam's first step, the rate times a sign for each weight, moves an entry if
    all images have the same tokens. ``radial`` is the root mean square over images of the gradient's part
    along the vector, ``tangential`` of the rest.
    """
    method.train()
    with torch.no_grad():
        tokens = method.encoder(images)
    vector = (tokens.flatten(1) @ method.bottleneck.weight.T).requires_grad_()
    short = vector * (vector.norm(dim=1, keepdim=True) / (1 + vector.square().sum(1, keepdim=True)))
    picture = method.decoder(short if method.bottleneck.squashed else vector, images.shape[2:])
    loss = method.mse_weight * (picture - images).square().mean()
    (gradient,) = torch.autograd.grad(loss, vector)
    along = (gradient * vector).sum(1) / vector.norm(dim=1)
    whole = gradient.square().sum(1)
    return {
        "length": vector.norm(dim=1).mean().item(),
        "images": vector.detach().var(0, correction=0).mean().item(),
        "noise": (method.latent_noise**2 * method.bottleneck.weight.square().sum(1).mean()).item(),
        "kick": method.learning_rate * tokens.flatten(1).abs().sum(1).mean().item(),
        "radial": along.square().mean().sqrt().item(),
        "tangential": (whole - along.square()).clamp(0).mean().sqrt().item(),
    }


def batches(data: AnomalyDataModule) -> Iterator[TrainBatch]:
    """Yield the batches of a run, epoch after epoch."""
    epoch = 0
    while True:
        data.order.set_epoch(epoch)
        for batch in data.train_dataloader():
            yield unlabelled(in_unit_range(batch.clean))
        epoch += 1


def unit(images: np.ndarray) -> Tensor:
    """Return (N, 3, H, W) float32 in [0, 1] of the data's own (N, H, W, 3) uint8 arrays."""
    return in_unit_range(torch.from_numpy(np.stack(list(images))).movedim(-1, 1).contiguous())


@torch.no_grad()
def state(method: AnomalyMethod, normal: Tensor, mean: Tensor) -> dict[str, float]:
    """Return what it makes of the held-out normals now."""
    method.eval()
    pictures = torch.cat([method.panels(part)["reconstruction"] for part in normal.split(8)])
    found: dict[str, float] = measured(normal, pictures, mean)._asdict()
    if isinstance(method, VtAdl):
        tokens = torch.cat([method.encoder(part) for part in normal.split(8)]).flatten(1)
        found |= {"tokens": spread(tokens)}
        if method.bottleneck.weight.ndim == 2:
            vector = method.bottleneck(tokens)
            found |= {"vector": spread(vector), "length": vector.norm(dim=1).mean().item()}
    method.train()
    return found


def trained(words: list[str], seed: int, steps: int) -> dict[str, Any]:
    """Train one variant on one category; return what is measured on the way."""
    began = time.monotonic()
    cfg = composed(*(word for word in words if word != NORMED), f"seed={seed}")
    data = built(cfg.data)
    L.seed_everything(seed, verbose=False)
    method = told(built(cfg.model))
    data.setup("fit")
    normal, mean = unit(data.normal.images), unit(data.train.images).mean(0)
    method.log_dict = lambda *_, **__: None
    method.setup("fit")
    if NORMED in words:
        method.norm = torch.nn.BatchNorm1d(method.bottleneck.weight.shape[1], affine=False)
        method.bottleneck.register_forward_pre_hook(lambda _, inputs: method.norm(inputs[0]))
    rows = [{"step": 0} | state(method, normal, mean)]
    start = pull(method, normal[:8]) if "vector" in rows[0] and NORMED not in words else {}
    optimizer = method.train().configure_optimizers()
    for step, batch in zip(range(1, steps + 1), batches(data), strict=False):
        optimizer.zero_grad()
        method.training_step(batch, 0).backward()
        method.on_before_optimizer_step(optimizer)
        optimizer.step()
        if step in {round(steps * share) for share in AT}:
            rows.append({"step": step} | state(method, normal, mean))
    seconds = time.monotonic() - began
    return {"rows": rows, "start": start, "normals": len(normal), "seconds": round(seconds)}


def cells(given: argparse.Namespace) -> Iterator[tuple[Path, list[str], int, int]]:
    """Yield the file, overrides, seed and steps of each training, in the order of their worth."""
    for (name, seed), category in product(ORDER, given.category or (CATEGORIES if given.real else ["nut"])):
        where = ["data=mvtec", f"data.root='{given.real}'"] if given.real else ["data=demo"]
        words = [*VARIANTS[name], *where, f"data.category={category}", "data.holdout=0.2"]
        steps = given.steps * (4 if "4 times" in name else 1)
        yield given.folder / f"{name} | {category} | {seed}.json", words, seed, steps


def lines(folder: Path) -> Iterator[str]:
    """Yield the tables of what is done: means over seeds, and the seeds' lowest and highest."""
    found = {tuple(file.stem.split(" | ")): json.loads(file.read_text()) for file in folder.glob("*.json")}
    keys = [*Found._fields, "tokens", "vector", "length"]
    yield from (
        f"| {' | '.join(row)} |" for row in (["variant", "category", "seeds", "steps", *keys], ["---"] * 10)
    )
    for category, name in product(sorted({key[1] for key in found}), VARIANTS):
        done = [
            one for (variant, where, _), one in sorted(found.items()) if (variant, where) == (name, category)
        ]
        for rows in zip(*(one["rows"] for one in done), strict=True):
            values = ([row[key] for row in rows if key in row] for key in keys)
            shown = [f"{np.mean(v):.4f} ({min(v):.4f} to {max(v):.4f})" if v else "" for v in values]
            yield f"| {' | '.join([name, category, str(len(rows)), str(rows[0]['step']), *shown])} |"
    yield ""
    yield (
        "| variant | category | seeds | length | images | noise | kick | radial | tangential |\n"
        + "| --- " * 9
        + "|"
    )
    for category, name in product(sorted({key[1] for key in found}), VARIANTS):
        pulls = [
            one["start"] for (v, c, _), one in found.items() if (v, c) == (name, category) and one["start"]
        ]
        if pulls:
            numbers = [f"{np.mean([pull[key] for pull in pulls]):.2e}" for key in pulls[0]]
            yield f"| {' | '.join([name, category, str(len(pulls)), *numbers])} |"


def main() -> None:
    """Do what is left, and print what is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--real")
    parser.add_argument("--category", nargs="+")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    began = time.monotonic()
    for file, words, seed, steps in cells(given):
        if not file.exists() and time.monotonic() - began < given.seconds:
            done = trained(words, seed, steps)
            file.write_text(json.dumps(done))
            print(f"{file.stem}: {done['seconds']} s", flush=True)
    print("\n".join(lines(given.folder)), flush=True)


if __name__ == "__main__":
    main()
