"""DRAEM with the weights that its authors released, and the rows of its Table 3."""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, interpolate, max_pool2d, relu

import anomaly_lab
from anomaly_lab.config.building import instantiate
from anomaly_lab.errors import ConfigError, RunError, mendable
from anomaly_lab.layers.similarity import msgms_map, ssim_map
from anomaly_lab.methods.draem import Draem
from tests.support.runs import composed, on_tree, ran
from tests.support.train_batches import inverted
from tests.support.training import told, weights
from tests.support.trees import mvtec_tree

State = dict[str, Tensor]
WIDE = 4  # of both networks here; the authors' are 128 and 64
SMALL = (f"model.reconstructive_width={WIDE}", f"model.discriminative_width={WIDE}")


def convolution(name: str, before: int, after: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (after, before, 3, 3)
    yield f"{name}.bias", (after,)


def normed(name: str, number: int, before: int, after: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A convolution and the norm after it, layers ``number`` and ``number + 1`` of a block."""
    yield from convolution(f"{name}.{number}", before, after)
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{number + 1}.{part}", (after,)
    yield f"{name}.{number + 1}.num_batches_tracked", ()


def twice(name: str, before: int, middle: int, after: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from normed(name, 0, before, middle)
    yield from normed(name, 3, middle, after)


def reconstructive_shapes(w: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names and shapes of the authors' NAME.pckl, at width 128 there."""
    for number, (a, b) in enumerate([(3, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w), (8 * w, 8 * w)], 1):
        yield from twice(f"encoder.block{number}", a, b, b)
    for number, (a, b) in enumerate([(8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w), (w, w)], 1):
        yield from normed(f"decoder.up{number}", 1, a, a)
        yield from twice(f"decoder.db{number}", a, a, b)
    yield from convolution("decoder.fin_out.0", w, 3)


def discriminative_shapes(w: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names and shapes of the authors' NAME_seg.pckl, at width 64 there."""
    blocks = [(6, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w), (8 * w, 8 * w), (8 * w, 8 * w)]
    for number, (a, b) in enumerate(blocks, 1):
        yield from twice(f"encoder_segment.block{number}", a, b, b)
    steps = {"_b": (8, 8, 8), "1": (8, 4, 8), "2": (4, 2, 4), "3": (2, 1, 2), "4": (1, 1, 1)}
    for name, (a, b, skip) in steps.items():
        yield from normed(f"decoder_segment.up{name}", 1, a * w, b * w)
        yield from twice(f"decoder_segment.db{name}", (b + skip) * w, b * w, b * w)
    yield from convolution("decoder_segment.fin_out.0", w, 2)


def drawn(shapes: Iterator[tuple[str, tuple[int, ...]]], seed: int) -> State:
    """Weights of these names and shapes that keep the spread of what runs through them."""
    generator = torch.Generator().manual_seed(seed)
    found = State()
    for name, shape in shapes:
        if len(shape) == 4:
            found[name] = torch.randn(shape, generator=generator) * (2 / (9 * shape[1])) ** 0.5
        elif shape:
            centre = 1.0 if name.endswith(("weight", "running_var")) else 0.0
            found[name] = centre + 0.4 * (torch.rand(shape, generator=generator) - 0.5)
        else:
            found[name] = torch.tensor(7)
    return found


def written(folder: Path) -> tuple[Path, State, State]:
    """Write a checkpoint as the authors' train_DRAEM.py does; return its first file and both states."""
    states = drawn(reconstructive_shapes(WIDE), 1), drawn(discriminative_shapes(WIDE), 2)
    folder.mkdir(exist_ok=True)
    for state, end in zip(states, ("", "_seg"), strict=True):
        torch.save(state, folder / f"DRAEM_800_bs8_part_{end}.pckl")
    return folder / "DRAEM_800_bs8_part_.pckl", *states


# The authors' networks written out, in float64 and on BGR images


def layer(state: State, name: str, number: int, x: Tensor) -> Tensor:
    at, norm = f"{name}.{number}", f"{name}.{number + 1}"
    x = conv2d(x, state[f"{at}.weight"], state[f"{at}.bias"], padding=1)
    running = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
    return relu(batch_norm(x, *running, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=1e-5))


def block(state: State, name: str, x: Tensor) -> Tensor:
    return layer(state, name, 3, layer(state, name, 0, x))


def up(state: State, name: str, x: Tensor) -> Tensor:
    return layer(state, name, 1, interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


def last(state: State, name: str, x: Tensor) -> Tensor:
    return conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)


def reconstructed(state: State, x: Tensor) -> Tensor:
    x = block(state, "encoder.block1", x)
    for number in (2, 3, 4, 5):
        x = block(state, f"encoder.block{number}", max_pool2d(x, 2))
    for number in (1, 2, 3, 4):
        x = block(state, f"decoder.db{number}", up(state, f"decoder.up{number}", x))
    return last(state, "decoder.fin_out.0", x)


def compared(state: State, x: Tensor) -> Tensor:
    """The probability that a pixel is anomalous, (B, H, W)."""
    b1 = block(state, "encoder_segment.block1", x)
    b2 = block(state, "encoder_segment.block2", max_pool2d(b1, 2))
    b3 = block(state, "encoder_segment.block3", max_pool2d(b2, 2))
    b4 = block(state, "encoder_segment.block4", max_pool2d(b3, 2))
    b5 = block(state, "encoder_segment.block5", max_pool2d(b4, 2))
    x = block(state, "encoder_segment.block6", max_pool2d(b5, 2))
    for name, skip in {"_b": b5, "1": b4, "2": b3, "3": b2, "4": b1}.items():
        x = up(state, f"decoder_segment.up{name}", x)
        x = block(state, f"decoder_segment.db{name}", torch.cat([x, skip], 1))
    return last(state, "decoder_segment.fin_out.0", x).softmax(1)[:, 1]


def double(state: State) -> State:
    return {name: value.double() for name, value in state.items()}


def draem(*overrides: str) -> Draem:
    torch.manual_seed(0)
    return instantiate(composed("model=draem_small", "data=demo", *overrides).model, _convert_="all")


def images(count: int = 2, size: int = 64) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def test_released_weights_say_what_the_authors_networks_say_of_the_image_in_bgr(tmp_path):
    file, reconstructive, discriminative = written(tmp_path)
    method = draem(*SMALL, f"model.init_from='{file}'")
    method.setup("fit")
    method.eval()
    bgr = images().flip(1).double()
    reconstruction = reconstructed(double(reconstructive), bgr)
    probability = compared(double(discriminative), torch.cat([reconstruction, bgr], 1))
    assert probability.std() > 0.02  # maps that differ would show it
    ours = method.panels(images())["reconstruction"]
    torch.testing.assert_close(ours.flip(1).double(), reconstruction, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(method(images()).anomaly_map.double(), probability, rtol=1e-3, atol=1e-4)
    assert (method(images().flip(1)).anomaly_map - method(images()).anomaly_map).abs().max() > 0.02


def test_every_weight_of_the_file_arrives_and_the_names_are_those_of_the_papers_sizes():
    with torch.device("meta"):
        full = instantiate(composed("model=draem", "data=demo").model, _convert_="all")
    for network, shapes in (
        (full.reconstructive, dict(reconstructive_shapes(128))),
        (full.discriminative, dict(discriminative_shapes(64))),
    ):
        own = [tuple(value.shape) for value in network.state_dict().values()]
        assert sorted(own) == sorted(shapes.values())


def spoilt(file: Path, end: str, change) -> None:
    place = file.with_name(f"{file.stem}{end}.pckl")
    state = torch.load(place, weights_only=True)
    change(state)
    torch.save(state, place)


@pytest.mark.parametrize("end", ["", "_seg"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop(next(iter(state))), "lacks encoder"),
        (lambda state: [state.pop(name) for name in list(state)[:3]], "and 2 more; give"),
        (lambda state: state.update(further=torch.ones(2)), "has besides further; give"),
        (
            lambda state: state.update({next(iter(state)): torch.ones(5, 3)}),
            "block1.0.weight 5x3 instead of 4x",
        ),
        (lambda state: state.update({list(state)[1]: "text"}), "block1.0.bias str instead of 4; give"),
        (
            lambda state: state.update({next(iter(state)): next(iter(state.values())) * torch.inf}),
            "has values that are not finite in encoder",
        ),
    ],
)
def test_a_weight_that_is_missing_further_or_of_another_shape_is_one_line(tmp_path, end, change, said):
    file, *_ = written(tmp_path)
    spoilt(file, end, change)
    method = draem(*SMALL, f"model.init_from='{file}'")
    before = {name: value.clone() for name, value in method.state_dict().items()}
    with pytest.raises(ConfigError) as caught:
        method.setup("fit")
    line = str(caught.value)
    assert line.startswith(f"model.init_from: {file.with_name(f'{file.stem}{end}.pckl')} ")
    assert said in line
    assert "\n" not in line
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


class Code:
    def __reduce__(self):
        return print, ("this ran",)


def test_what_is_no_checkpoint_is_one_line_and_nothing_in_it_runs(tmp_path, capsys):
    file, *_ = written(tmp_path)
    method = draem(*SMALL, f"model.init_from='{file}'")
    for content in (Code(), [1, 2]):
        torch.save(content, file)
        with pytest.raises(ConfigError, match=r"^model\.init_from: .*_part_\.pckl [^\n]*$"):
            method.setup("fit")
    assert "this ran" not in capsys.readouterr().out
    file.write_bytes(b"no checkpoint")
    with pytest.raises(ConfigError, match=r"cannot be read .*; give the authors' NAME\.pckl$"):
        method.setup("fit")


def test_a_file_that_is_not_there_is_named_before_anything_is_built(tmp_path):
    file, *_ = written(tmp_path)
    for given, said in (
        ([f"model.init_from={tmp_path}/none.pckl"], "no file .*none.pckl; give random"),
        ([f"model.init_from='{file}'", "model.networks=discriminator"], "model.networks: discriminator, but"),
    ):
        with pytest.raises(Exception, match=said) as caught:
            draem(*SMALL, *given)
        assert isinstance(mendable(caught.value), ConfigError)
    file.with_name(f"{file.stem}_seg.pckl").unlink()
    with pytest.raises(Exception, match=r"no file .*_seg\.pckl beside") as caught:
        draem(*SMALL, f"model.init_from='{file}'")
    assert isinstance(mendable(caught.value), ConfigError)


def test_one_command_scores_with_released_weights_and_trains_nothing(tmp_path):
    file, reconstructive, _ = written(tmp_path / "released")
    tree = mvtec_tree(tmp_path / "data", train=4, size=(64, 64))
    words = ["model=draem_small", *SMALL, *on_tree(tree), "synthesis=none", "trainer.step_limit=0"]
    words += ["data.image_size=64", "data.holdout=0", "evaluation.bootstrap=10", "evaluation.overlays=0"]
    metrics, path = ran(tmp_path, *words, f"model.init_from='{file}'")
    assert 0 <= metrics["image_auroc"] <= 1
    kept = weights(path)
    norm = "reconstructive.encoder.2.1.running_mean"
    assert torch.equal(kept[norm], reconstructive["encoder.block3.1.running_mean"])
    made_from = json.loads((path / "manifest.json").read_text())["weights"]
    files = (file, file.with_name(f"{file.stem}_seg.pckl"))
    assert made_from == ["+".join(hashlib.blake2b(f.read_bytes(), digest_size=8).hexdigest() for f in files)]
    scores = [
        float(row["score"]) for row in csv.DictReader((path / "predictions.csv").read_text().splitlines())
    ]
    torch.save(drawn(discriminative_shapes(WIDE), 3), files[1])  # another second file is another training
    with pytest.raises(RunError, match="weights"):
        ran(tmp_path, *words, f"model.init_from='{file}'")
    with pytest.raises(ConfigError, match=r"^trainer\.step_limit: 0, but Draem has no trained weights"):
        ran(tmp_path, *words)
    for released in files:
        released.unlink()  # the run has its own
    tested = sorted((tree / "part" / "test").rglob("*.png"))
    found = anomaly_lab.load(path).predict([np.array(Image.open(image)) for image in tested])
    np.testing.assert_allclose(np.sort(found.score), np.sort(scores), rtol=1e-4)


# Table 3


@pytest.mark.parametrize(
    ("networks", "terms", "parts"),
    [
        ("both", {"mse", "ssim", "focal"}, {"reconstructive", "discriminative"}),
        ("discriminator", {"focal"}, {"discriminative"}),
        ("reconstruction_ssim", {"mse", "ssim"}, {"reconstructive"}),
        ("reconstruction_msgms", {"mse", "ssim"}, {"reconstructive"}),
    ],
)
def test_a_row_of_table_3_has_its_networks_its_loss_and_a_map(networks, terms, parts):
    method = told(draem(f"model.networks={networks}"))
    assert {name.partition(".")[0] for name in method.state_dict()} == parts
    logged: dict[str, Tensor] = {}
    method.log_dict = logged.update
    clean = images()
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[:, 10:30, 20:40] = True
    batch = inverted(clean, mask)
    method.training_step(batch, 0).backward()
    assert logged.keys() == {"loss", *(f"loss/{term}" for term in terms)}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    prediction = method.eval()(clean)
    assert prediction.anomaly_map.shape == (2, 64, 64)
    assert prediction.score.shape == (2,)
    assert set(method.panels(clean)) == ({"reconstruction"} if "reconstructive" in parts else set())
    assert method.configure_optimizers()["optimizer"].param_groups[0]["params"]
    alone = method(clean[:1])  # what else is in a batch does not count
    torch.testing.assert_close(alone.anomaly_map[0], prediction.anomaly_map[0], rtol=1e-4, atol=1e-5)
    if "discriminative" in parts:
        seen = method.discriminative.encoder[0][0].in_channels
        assert seen == (6 if "reconstructive" in parts else 3)


@torch.no_grad()
def test_the_maps_of_the_reconstruction_alone_are_those_of_its_similarity():
    for networks, wanted in (("reconstruction_ssim", ssim_map), ("reconstruction_msgms", msgms_map)):
        method = draem(f"model.networks={networks}").eval()
        reconstruction = method.panels(images())["reconstruction"]
        assert torch.equal(method(images()).anomaly_map, wanted(reconstruction, images()))
