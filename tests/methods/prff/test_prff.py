"""PRFF-AD: with all switches off it is DRAEM; its sizes, its fused features, its training, what cannot be."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.prff.method import Reduction
from tests.methods.prff.small import AS_DRAEM, OFF, batch, built, learning
from tests.support.runs import CHECKOUT


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_with_all_switches_off_it_equals_draem_in_weights_losses_and_maps():
    methods = built("model=draem_small"), built("model=prff_small", *AS_DRAEM)
    logged: list[dict[str, torch.Tensor]] = []
    for method in methods:
        learning(method, 3).log_dict = logged.append
        training = method.configure_optimizers()
        for index in range(3):
            training["optimizer"].zero_grad()
            method.training_step(batch(), index).backward()
            training["optimizer"].step()
            training["lr_scheduler"]["scheduler"].step()
    draem, prff = (method.eval() for method in methods)
    ours, theirs = prff.state_dict(), draem.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    focal = [row["loss/focal"].item() for row in logged]
    assert focal[:3] == focal[3:]
    with torch.no_grad():
        for one, other in zip(draem(batch().image), prff(batch().image), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(("recipe", "millions"), [("prff_swin_b", 86.8), ("prff", 187.7)])
def test_parameter_counts_are_those_of_the_published_sizes(recipe, millions):
    with torch.device("meta"):
        method = built(f"model={recipe}")
    encoder = parameters(method.discriminative.swin) + parameters(method.discriminative.norms)
    assert round(encoder / 1e6, 1) == millions
    assert round(parameters(method.discriminative.head) / 1e6, 1) == 33.2
    assert round(parameters(method.reconstructive) / 1e6, 2) == 69.05
    page = (CHECKOUT / "docs" / "methods" / "prff.md").read_text()
    column = 2 if recipe == "prff_swin_b" else 1
    rows = {cells[0]: cells for line in page.splitlines() if (cells := line.strip("| ").split(" | "))}
    assert rows["encoder"][column] == f"{encoder:,}"
    assert rows["head"][column] == f"{parameters(method.discriminative.head):,}"
    assert rows["reconstruction network"][column] == f"{parameters(method.reconstructive):,}"
    assert rows["fusion"][column] == f"{parameters(method.fusion):,}"
    assert rows["all"][column] == f"{parameters(method):,}"


@pytest.mark.parametrize(("channels", "wanted"), [(3, 15), (1, 9)])
def test_the_discriminator_sees_15_channels_or_the_9_of_the_text(channels, wanted):
    with torch.device("meta"):
        method = built("model=prff", f"model.feature_channels={channels}")
    assert method.discriminative.swin.patch_embed.proj.in_channels == wanted
    assert [reduction.conv.in_channels for reduction in method.fusion] == [512, 1024, 128]


def test_fused_features_are_resized_before_norm_and_activation():
    torch.manual_seed(0)
    reduction = Reduction(4, 2).eval()
    reduction.norm.running_mean.uniform_(-0.5, 0.5)
    level = torch.randn(1, 4, 5, 6)
    small = reduction.conv(level).detach().double().numpy()
    rows, columns = ((np.arange(n * 2) + 0.5) / 2 - 0.5 for n in (5, 6))
    wanted = np.empty((2, 10, 12))
    rows, columns = np.clip(rows, 0, 4), np.clip(columns, 0, 5)
    for c, (i, y), (j, x) in itertools.product(range(2), enumerate(rows), enumerate(columns)):
        (y0, dy), (x0, dx) = (int(y), y % 1), (int(x), x % 1)
        y1, x1 = min(y0 + 1, 4), min(x0 + 1, 5)
        top = small[0, c, y0, x0] * (1 - dx) + small[0, c, y0, x1] * dx
        wanted[c, i, j] = top * (1 - dy) + (small[0, c, y1, x0] * (1 - dx) + small[0, c, y1, x1] * dx) * dy
    mean, scale = reduction.norm.running_mean.numpy(), np.sqrt(1 + reduction.norm.eps)
    wanted = np.maximum((wanted - mean[:, None, None]) / scale, 0)
    ours = reduction(level, torch.empty(1, 3, 10, 12))[0].detach().numpy()
    np.testing.assert_allclose(ours, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        *("progressive.iterations=3", "progressive.threshold=0.1", "progressive.gate=open"),
        *("progressive.compared=previous", "progressive.features=first", "progressive.kept=max"),
        *("scorer.kernel_size=3", "scorer.reduce=mean"),
    ],
)
def test_what_is_marked_as_evaluation_only_changes_no_weight(change):
    def trained(*overrides: str) -> dict[str, torch.Tensor]:
        method = learning(built("model=prff_small", *overrides), 2)
        optimizer = method.configure_optimizers()["optimizer"]
        for index in range(2):
            optimizer.zero_grad()
            method.training_step(batch(), index).backward()
            optimizer.step()
        return method.state_dict()

    plain, changed = trained(), trained(f"model.{change}")
    assert all(torch.equal(plain[key], changed[key]) for key in plain)


def test_a_second_trained_iteration_sees_the_first_ones_output():
    method = learning(built("model=prff_small", "model.trained_iterations=2", *OFF), 2)
    sources: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    method.reconstructive.register_forward_pre_hook(lambda _m, inputs: sources.append(inputs[0]))
    method.reconstructive.register_forward_hook(lambda _m, _i, output: outputs.append(output[0]))
    method.training_step(batch(), 0).backward()
    assert torch.equal(sources[0], batch().image)
    assert torch.equal(sources[1], outputs[0].detach())
    assert not sources[1].requires_grad


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("model.feature_layers=[0,5]", "feature_layers"),
        ("model.feature_layers=[]", "feature_layers"),
        ("model.progressive.iterations=0", "iterations"),
        ("model.swin_upernet.depths=[2,2]", "depths"),
        ("model.swin_upernet.num_heads=[3,6,12,24]", "num_heads"),
        ("model.trained_iterations=0", "trained_iterations"),
        ("model.discriminator_learning_rate=-1", "discriminator_learning_rate"),
        ("model.discriminator_weight_decay=-1", "discriminator_weight_decay"),
        ("model.milestones=[80,90]", "milestones"),
        ("model.gamma=0", "gamma"),
        ("model.swin_upernet.dropout=2", "dropout"),
        ("model.swin_upernet.drop_path_rate=-0.5", "drop_path_rate"),
        ("model.swin_upernet.embed_dim=0", "embed_dim"),
    ],
)
def test_bad_values_name_their_key(override, key):
    with pytest.raises(Exception, match=key) as error:
        built("model=prff_small", override)
    assert isinstance(error.value, ConfigError) or isinstance(error.value.__cause__, ConfigError)
