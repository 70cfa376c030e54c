"""Which weight of its penalty CPCAE's autoencoder should have, by normal images alone.

python -m tests.sparsity [WEIGHTS] data=mvtec data.root=DIR data.category=NAME seed=0 trainer.max_steps=1000

The autoencoder of ``model=ae_l2_small``, or of another that is named, is trained on the training normals
with each weight, from the same first weights and on the same batches, and looks at those that
``data.holdout`` keeps. No image of the test set and no label is looked at. The rule is that of one standard
error (Breiman,
Friedman, Olshen, Stone, Classification and Regression Trees, 1984): of the weights whose mean error of the
held-out images is at most one standard error above the least, the largest.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from anomaly_lab.config.building import built
from anomaly_lab.config.checked import Checked
from anomaly_lab.config.composing import composed
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.batches import as_tensor
from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.patch_autoencoder import PatchAutoencoder
from anomaly_lab.types import in_unit_range

WEIGHTS = "0,1e-3,1e-2,3e-2,1e-1,3e-1,1"
FEWEST = 3  # held-out images of which a standard error says something
MOST = 64  # training images whose error is taken


class Seen(NamedTuple):
    """What an autoencoder makes of M images, each a mean over its patches."""

    error: np.ndarray  # (M,) float64, squared, summed over a patch (equation 2)
    active: np.ndarray  # (M,) float64, latent values above 0
    penalty: np.ndarray  # (M,) float64, sum of the latent values (equation 3, without its weight)


def chosen(weights: Sequence[float], errors: Sequence[np.ndarray]) -> float:
    """Return the largest weight whose mean error is at most a standard error above the least mean.

    Args:
        weights: in any order.
        errors: of each weight, (M,) for the same M held-out images.
    """
    means = [error.mean() for error in errors]
    best = errors[int(np.argmin(means))]
    bound = best.mean() + best.std(ddof=1) / np.sqrt(len(best))
    return max(weight for weight, mean in zip(weights, means, strict=True) if mean <= bound)


@torch.no_grad()
def seen(autoencoder: PatchAutoencoder, images: np.ndarray) -> Seen:
    """Return what an autoencoder makes of (M, H, W, 3) uint8 images."""
    found = []
    for image in images:
        patches = autoencoder.patches(tensors(image[None]))[0]
        again, latent = autoencoder.eval()(patches, autoencoder.position)
        error = (again.double() - patches.double()).square().sum((1, 2, 3))
        found.append((error.mean(), (latent > 0).double().sum(1).mean(), latent.double().sum(1).mean()))
    return Seen(*np.array(found, np.float64).T)


def trained(cfg: DictConfig, weight: float, images: np.ndarray, steps: int) -> PatchAutoencoder:
    """Return the recipe's autoencoder, trained with this weight on (N, H, W, 3) uint8 images."""
    torch.manual_seed(cfg.seed)
    cfg.model.autoencoder.activity_l1 = weight
    autoencoder: PatchAutoencoder = built(cfg.model.autoencoder).train()
    optimizer = torch.optim.Adam(autoencoder.parameters(), cfg.model.learning_rate)
    for rows in batches(len(images), cfg.data.batch_size, steps, cfg.seed):
        loss = autoencoder.loss(tensors(images[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return autoencoder


def batches(count: int, size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the rows of so many batches; each pass has its own order."""
    rng, rows = np.random.default_rng(seed), np.arange(0)
    for _ in range(steps):
        while len(rows) < min(size, count):
            rows = np.concatenate([rows, rng.permutation(count)])
        yield np.sort(rows[:size])
        rows = rows[size:]


def tensors(images: np.ndarray) -> Tensor:
    """Return (B, 3, H, W) float32 images in [0, 1]."""
    return in_unit_range(torch.stack([as_tensor(image) for image in images]))


def compared(weights: Sequence[float], overrides: Sequence[str]) -> float:
    """Print a row a weight; return the one that the rule chooses."""
    cfg = composed(["model=ae_l2_small", *overrides]).cfg
    Checked.of(cfg, ())
    data: AnomalyDataModule = built(cfg.data)
    data.setup("fit")
    held = data.normal.images
    if len(held) < FEWEST:
        raise ConfigError(
            f"data.holdout: keeps {len(held)} normal images; give a share that keeps {FEWEST} at least"
        )
    images = data.train.images
    print(f"{cfg.data.category}: {len(images)} normal images, {len(held)} held out, seed {cfg.seed}\n")
    print("| weight | held-out error | its standard error | training error | active values | of the loss |")
    print("| --- | --- | --- | --- | --- | --- |")
    errors = []
    for weight in weights:
        autoencoder = trained(cfg, weight, images, cfg.trainer.max_steps)
        others, own = seen(autoencoder, held), seen(autoencoder, images[:MOST])
        penalty = weight * others.penalty.mean()
        spread = others.error.std(ddof=1) / np.sqrt(len(held))
        cells = f"{weight:g} | {others.error.mean():.3f} | {spread:.3f} | {own.error.mean():.3f}"
        share = penalty / (penalty + others.error.mean())
        print(f"| {cells} | {others.active.mean():.1f} | {share:.1%} |", flush=True)
        errors.append(others.error)
    print(f"\nchosen: {chosen(weights, errors):g}\n", flush=True)
    return chosen(weights, errors)


def main(arguments: Sequence[str]) -> None:
    """Compare the weights that come first, or else `WEIGHTS`."""
    given = bool(arguments) and "=" not in arguments[0]
    words = arguments[0] if given else WEIGHTS
    compared([float(word) for word in words.split(",")], arguments[1:] if given else arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
