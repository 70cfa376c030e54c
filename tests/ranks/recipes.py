"""The first gradient of every recipe that is trained, on a batch that two ranks may share.

In float64: in float32 the order of additions alone changes the first gradient of DRAEM by a quarter.
"""

from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hydra.utils import instantiate
from torch import Tensor

from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.ranks import exchange, here
from anomaly_lab.ranks.norms import NormsOfAll
from anomaly_lab.ranks.seats import Seat, seated
from anomaly_lab.types import TrainBatch
from tests.support.runs import composed
from tests.support.supervision import given
from tests.support.train_batches import inverted
from tests.support.training import told

RECIPES = {
    "capsnet_small": [],
    "draem_small": [],
    "draem_guessed": ["model=draem_small", "model.ssim_range=guessed"],
    "mlff_small": ["model.losses.feature=0"],
    "mlff_levels": ["model=mlff_small", "model.losses.form=levels", "model.losses.feature=0"],
    "mlff_pairs": ["model=mlff_small", "model.losses.form=pairs"],
    "prff_small": [],
    "prff_unet": ["model=prff_small", "model.discriminator=unet", "model.trained_iterations=2"],
    "vt_adl_small": [],
    "pyramidal_ae_small": [],
    "piade_small": [],
    "ae_mse_ssim_small": [],
    "ae_l2_small": [],
    "unet_plus_plus_small": ["model.network.dropout=0.25"],
    "segnet_small": [],
    "cpcae_folds": ["model=cpcae_knn_small", "model.residual_folds=3"],
}
SIDE = 128


def batch_of(count: int) -> TrainBatch:
    """Return images of 8 bits, each with a pseudo anomaly."""
    drawn = torch.Generator().manual_seed(count)
    clean = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=drawn) / 255
    mask = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    mask[:, 20:60, 30:80] = True
    clean = clean.double()
    return inverted(clean, mask)


def made(name: str) -> AnomalyMethod:
    """Return the method of a recipe with its first weights."""
    words = RECIPES[name]
    model = [] if any(word.startswith("model=") for word in words) else [f"model={name}"]
    torch.manual_seed(0)
    method = told(instantiate(composed(*model, *words, f"data.image_size={SIDE}").model, _convert_="all"))
    method.setup("fit")
    method.log_dict = lambda *_, **__: None
    return method.train().double()


def gradient(name: str, batch: TrainBatch) -> dict[str, Tensor]:
    """Return the loss of a batch and its gradient, joined to one vector; and the norms' means."""
    method = made(name)
    batch = given(method, batch)
    torch.manual_seed(1)
    if here.size() == 1:
        loss = method.training_step(batch, 0)
        loss.backward()
    else:
        step = here.step_of(len(batch.image))
        rows = here.rows(step.all) if step.mine else slice(step.all - 1, step.all)
        with here.stepping(step), NormsOfAll():
            loss = method.training_step(TrainBatch(*(values[rows] for values in batch)), 0)
        loss = loss * (step.mine / step.all)
        loss.backward()
        loss = exchange.summed(loss)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    flat = torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in weights])
    exchange.sum_up(flat)
    norms = [value for key, value in method.state_dict().items() if key.endswith("running_mean")]
    return {"loss": loss.detach(), "gradient": flat, "norms": torch.cat(norms or [torch.zeros(1)])}


def all_of_them() -> dict[tuple[str, int], dict[str, Tensor]]:
    """Return it by recipe and number of images."""
    with mock.patch.object(Tensor, "float", lambda x: x if x.dtype == torch.float64 else x.double()):
        return _all_of_them()


def _all_of_them() -> dict[tuple[str, int], dict[str, Tensor]]:
    return {(name, count): gradient(name, batch_of(count)) for name in RECIPES for count in (5, 1)}


def accompany(seat: Seat, store: Any) -> None:
    """Compute it as a further rank, and keep it."""
    with seated(seat, store):
        found = all_of_them()
    torch.save(found, Path(seat.job["folder"], f"{seat.rank}.pt"))
