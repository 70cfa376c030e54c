"""Before a training: whether method, data and evaluation go together, and what the method is told."""

import math
from collections.abc import Iterable

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.batches import Normals
from anomaly_lab.errors import ConfigError
from anomaly_lab.evaluation.settings import EvaluationSettings
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.training.settings import TrainerSettings
from anomaly_lab.types import Training


def check_together(method: AnomalyMethod, data: AnomalyDataModule, how: EvaluationSettings) -> None:
    """Raise ConfigError for parts that are right by themselves but not with each other."""
    method.check_size(*data.geometry().size)
    if data.synthesis.source != "none" and not method.pseudo:
        raise ConfigError("synthesis: this method learns from normal images alone; give synthesis=none")
    if data.register:  # masks that are read again lie where the photographs did
        if how.resolution == "original":
            raise ConfigError(
                "evaluation.resolution: original does not go with data.register=true; give network"
            )
        if how.mask_resize != "nearest":
            raise ConfigError(
                f"evaluation.mask_resize: {how.mask_resize} does not go with data.register=true; give nearest"
            )


def planned(settings: TrainerSettings, data: AnomalyDataModule) -> Training:
    """Return what a training of these settings on these data is. ConfigError: it would have no steps."""
    ranks = settings.ranks()
    check_shared(ranks, data)
    batches = data.batches_per_epoch
    steps = settings.steps(batches)
    return Training(
        steps=steps,
        epochs=math.ceil(steps / batches),
        precision=settings.precision,
        each_once=data.sampling == "shuffle",
        augmented=data.augment is not None,
        pseudo=data.synthesis.source != "none" and data.synthesis.ratio != 0,
        normals=data.normals,
        ranks=ranks,
        anomalies=len(data.roles["anomalies"]),
        kept=Normals(lambda: data.normal.images, data.batch_size),
    )


def sizes(method: AnomalyMethod) -> tuple[int, int]:
    """Return how many parameters a method has, and how many of them learn by gradients."""
    parameters = list(method.parameters())
    learning = (parameter.numel() for parameter in parameters if parameter.requires_grad)
    return sum(parameter.numel() for parameter in parameters), sum(learning)


def check_shared(ranks: int, data: AnomalyDataModule) -> None:
    """Raise ConfigError unless each of several ranks has an image of a batch, and of the test set."""
    if ranks == 1:
        return
    found = {"a batch (data.batch_size)": data.batch_size, "training": len(data.order)}
    found["the test set"] = len(data.roles["test"])
    for name, count in found.items():
        if count < ranks:
            shown = f"{ranks} processes would share the {count} images of {name}"
            raise ConfigError(f"trainer.devices: {shown}; give at most {count} devices")


def introduced(method: AnomalyMethod, size: tuple[int, int], notes: Iterable[str] = ()) -> str:
    """Return a line on what is to be trained: its size, how much of it learns, on what, for how long.

    What else is to be said before a training, the notes, follows in lines of its own.
    """
    total, learning = sizes(method)
    megabytes = sum(one.numel() * one.element_size() for one in method.parameters()) / 1e6
    share = f"{learning / total:.0%} of them trainable" if total else "nothing to train by gradients"
    plan = method.plan
    length = f"{plan.steps} steps" if method.automatic_optimization else f"a fit over {plan.steps} batches"
    name = type(method).__name__
    line = (
        f"{name}: {total / 1e6:.2f} M parameters ({megabytes:.1f} MB), {share}; "
        f"images of {size[0]} x {size[1]}; {length} in {plan.epochs} epoch{'' if plan.epochs == 1 else 's'}"
    )
    return "\n".join([line, *filter(None, notes)])
