"""MLFF: its switches, its center, its weights and sizes, what cannot be."""

import copy

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn.functional import interpolate

from anomaly_lab.config.building import instantiate
from anomaly_lab.errors import ConfigError
from tests.methods.mlff.narrow import TINY, batch, built
from tests.support.export import exported
from tests.support.runs import composed

SWITCHES = ("model.texture.tem", "model.texture.ptfem", "model.calibration")


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


FORMS = ("overlap", "levels", "pairs")


@pytest.mark.parametrize(
    ("pseudo", "form"),
    [*((pseudo, "overlap") for pseudo in ("no", "some", "all")), ("no", "levels"), ("all", "pairs")],
)
def test_every_part_learns_whatever_the_batch_holds(pseudo, form):
    method = built("model.backbone.freeze=false", f"model.losses.form={form}")
    optimizer = method.configure_optimizers()["optimizer"]
    before = copy.deepcopy(dict(method.named_parameters()))
    for _ in range(2):
        optimizer.zero_grad()
        loss = method.training_step(batch(pseudo), 0)
        loss.backward()
        optimizer.step()
        method.on_train_epoch_end()  # the second step has the feature loss, too
        assert loss.isfinite()
    assert len(method.center_) == (0 if form == "pairs" else 8)
    still = [name for name, value in method.named_parameters() if torch.equal(value, before[name])]
    assert not still
    assert all(value.isfinite().all() for value in method.state_dict().values())


def test_the_center_is_the_mean_of_normal_features_in_the_first_epoch():
    method = built()
    seen: list[Tensor] = []
    method.fuse.register_forward_hook(lambda _, __, out: seen.append(out.detach().double()))
    batches = [batch("some"), batch("no", count=3, seed=2), batch("all", seed=3)]
    for one in batches:
        method.training_step(one, 0)
        assert method.center_.shape == (0,)
    method.on_train_epoch_end()
    total, count = torch.zeros(8, dtype=torch.float64), 0
    for one, features in zip(batches, seen, strict=True):
        for image in range(len(one.image)):
            for r in range(32):  # the fusion's side; a position is two pixels wide
                for c in range(32):
                    if not one.mask[image, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].any():
                        total += features[image, :, r, c]
                        count += 1
    assert count == 32 * 32 * 7 - 3 * 100
    torch.testing.assert_close(method.center_.double(), total / count, rtol=1e-5, atol=1e-6)
    kept = method.center_.clone()
    method.training_step(batches[0], 0)
    method.on_train_epoch_end()
    assert torch.equal(method.center_, kept)


def test_each_loss_has_a_weight_and_the_feature_loss_begins_in_the_second_epoch():
    logged: list[dict[str, Tensor]] = []
    for weights in ((1, 1, 0.1), (2, 0, 0), (0, 3, 0.5)):
        named = zip(("score", "consistency", "feature"), weights, strict=True)
        method = built(*(f"model.losses.{key}={weight}" for key, weight in named))
        method.log_dict = logged.append
        for _ in range(2):
            total = method.training_step(batch(), 0)
            assert total.item() == pytest.approx(sum(v.item() for k, v in logged[-1].items() if k != "loss"))
            method.on_train_epoch_end()
    names = [sorted(key.removeprefix("loss/") for key in row if key != "loss") for row in logged]
    both, all_three = ["consistency", "score"], ["consistency", "feature", "score"]
    assert names == [both, all_three, ["score"], ["score"], ["consistency"], ["consistency", "feature"]]
    assert logged[2]["loss/score"].item() == pytest.approx(2 * logged[0]["loss/score"].item())
    assert logged[4]["loss/consistency"].item() == pytest.approx(3 * logged[0]["loss/consistency"].item())


@pytest.mark.parametrize("form", FORMS)
def test_a_form_takes_what_it_needs_and_scores_alike_before_training(form):
    first, method = built(), built(f"model.losses.form={form}")
    assert [head.in_channels for head in method.level_heads] == ([24, 40, 112] if form == "levels" else [])
    same = method.state_dict()
    assert all(torch.equal(value, same[key]) for key, value in first.state_dict().items())
    one = batch()
    with torch.no_grad():
        assert torch.equal(method.eval()(one.image).score, first.eval()(one.image).score)
    found = method.train()._outputs(one)
    assert found.scores.shape == (2, 64, 64)
    assert found.features.shape == (2, 8, 32, 32)
    assert (None if found.levels is None else found.levels.shape) == (
        (3, 2, 64, 64) if form == "levels" else None
    )
    assert (found.clean_scores is None) is (form != "pairs")
    if form == "pairs":
        normal = method._outputs(batch("no"))  # of which image and clean are the same
        torch.testing.assert_close(normal.scores, normal.clean_scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(normal.features, normal.clean_features, atol=1e-4, rtol=0)
        assert not torch.allclose(found.features[0], found.clean_features[0], atol=0.1)


def test_a_form_whose_losses_are_off_costs_nothing():
    assert not len(built("model.losses.form=levels", "model.losses.consistency=0").level_heads)
    pairs = ("model.losses.form=pairs", "model.losses.consistency=0", "model.losses.feature=0")
    assert built(*pairs)._outputs(batch()).clean_scores is None


def test_the_map_is_the_smoothed_score_and_the_image_counts_by_its_maximum():
    method = built("model.sigma=1.5").eval()
    image = batch().image
    with torch.no_grad():
        prediction = method(image)
        raw = method._score(image)[0].double()
    assert 0 <= raw.min() <= raw.max() <= 1
    large = interpolate(raw, (64, 64), mode="bilinear")[:, 0].numpy()
    wanted = np.stack([gaussian_filter(one, 1.5) for one in large])
    np.testing.assert_allclose(prediction.anomaly_map, wanted, atol=1e-5)
    np.testing.assert_allclose(prediction.score, wanted.max((1, 2)), atol=1e-5)


@pytest.mark.parametrize("size", [32, 96, 128, 200])
def test_images_of_any_size_are_taken(size):
    method = built()
    method.check_size(size, size)
    assert method.training_step(batch(size=size, count=1), 0).isfinite()  # a last batch of one, too
    with torch.no_grad():
        assert method.eval()(batch(size=size).image).anomaly_map.shape == (2, size, size)


def stl(inputs: int, width: int) -> int:
    """Weights of the texture branch, counted from the layers that docs/methods/mlff.md lists in note 4."""
    c, h, q = width, width // 2, width // 4
    norm = lambda channels: 2 * channels  # noqa: E731
    tem = 9 * c * c + norm(c) + c * h + 2 * q + q * h + 2 * h * h + norm(h) + 3 * h * h + h * c + norm(c)
    cell = 3 * q + q * h + (c + h) * h + norm(h) + h * h + norm(h)
    ptfem = 2 * c * c + 4 * cell + 4 * h * c + norm(c)
    return inputs * c + norm(c) + tem + ptfem


@pytest.mark.parametrize(
    ("name", "widths"), [("resnet18", (64, 128, 256)), ("wide_resnet50_2", (256, 512, 1024))]
)
def test_the_papers_recipe_has_the_parts_and_weights_of_its_layer_list(name, widths):
    with torch.device("meta"):
        backbone = (f"model.backbone.name={name}", "model.backbone.weights=random")
        recipe = composed("model=mlff", "data=demo", *backbone)
        method = instantiate(recipe.model, _convert_="all")
    low, middle, high = widths
    assert method.backbone.channels == list(widths)
    assert method.backbone.strides == [4, 8, 16]
    assert parameters(method.texture) == stl(low + middle, 256)
    assert parameters(method.calibrate) == 3 * (9 * high * high + 2 * high)
    joined = low + middle + 768 + high
    assert parameters(method.fuse) == joined * 256 + 512 + 9 * 256 * 256 + 512
    assert parameters(method.head) == 257
    if name == "resnet18":
        assert parameters(method.backbone) == 2_782_784  # torchvision's ResNet-18 up to its third stage


@pytest.mark.parametrize("off", [(), *((switch,) for switch in SWITCHES), SWITCHES[:2], SWITCHES])
def test_every_component_can_be_off(off):
    method = built(*(f"{switch}=false" for switch in off))
    none = {*SWITCHES[:2]} <= {*off}  # of the texture's two parts
    texture = 0 if none else 8 * (3 - sum(switch in off for switch in SWITCHES[:2]))
    assert method.fuse[0][0].in_channels == 24 + 40 + 112 + texture
    assert isinstance(method.calibrate, nn.Identity) is (SWITCHES[2] in off)
    assert (method.texture is None) is none
    assert method.training_step(batch(), 0).isfinite()


def test_a_frozen_backbone_keeps_weights_and_statistics_and_a_trained_one_has_its_own_rate():
    for freeze in (True, False):
        method = built(f"model.backbone.freeze={freeze}".lower()).train()
        training = method.configure_optimizers()
        before = copy.deepcopy(method.backbone.state_dict())
        method.training_step(batch(), 0).backward()
        training["optimizer"].step()
        same = [torch.equal(before[key], value) for key, value in method.backbone.state_dict().items()]
        assert all(same) if freeze else not any(same)
        rates = [group["initial_lr"] for group in training["optimizer"].param_groups]
        assert rates == [2e-3] if freeze else rates == [2e-3, 2e-4]


def test_bf16_trains_and_its_losses_and_maps_are_float32():
    method = built("model.backbone.freeze=false")
    exact = method.eval()(batch().image)
    method.train()
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            loss = method.training_step(batch(), 0)
        assert loss.dtype == torch.float32
        loss.backward()
        method.on_train_epoch_end()
    assert method.center_.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in method.parameters())
    method = built().eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = method(batch().image)
    assert rough.anomaly_map.dtype == rough.score.dtype == torch.float32
    torch.testing.assert_close(rough.anomaly_map, exact.anomaly_map, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "model.backbone.layers=[blocks.1,blocks.2,layer3]",
            "model.backbone.layers: layer3 is no layer of tf_eff",
        ),
        ("model.backbone.layers=[blocks.1,blocks.2]", "model.backbone.layers: this method wants three"),
        (
            "model.backbone.layers=[blocks.4,blocks.2,blocks.1]",
            "model.backbone.layers: this method wants three, from sh",
        ),
        (
            "model.backbone.layers=[blocks.1,blocks.4,blocks.2]",
            "model.backbone.layers: this method wants three, from sh",
        ),
        ("model.backbone.weights=here.pth", "model.backbone.weights: no file here.pth"),
        ("model.calibration_rate=0", "model.calibration_rate: 0; give at least 1"),
        ("model.texture.ptfem_scales=[0]", "model.texture.ptfem_scales: [0]; give"),
        ("model.fusion_size=1", "model.fusion_size: 1; give at least 2"),
        ("model.sigma=-1", "model.sigma: -1; give at least 0"),
        ("model.losses.feature=-1", "model.losses.feature: -1 must not be below 0"),
        ("model.losses.focal_gamma=-1", "model.losses.focal_gamma: -1 must not be below 0"),
        ("model.losses.focal_gamma=0.5", "model.losses.focal_gamma: 0.5; give 0 or at least 1"),
        ("model.backbone_learning_rate=0", "model.backbone_learning_rate: 0 must be above 0"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_the_key(override, said):
    with pytest.raises(Exception) as error:  # noqa: PT011 - Hydra wraps it
        built(override)
    cause = error.value.__cause__ or error.value
    assert isinstance(cause, ConfigError)
    assert str(cause).startswith(said)
    assert "\n" not in str(cause)


def test_nothing_to_train_by_and_images_too_small_are_refused():
    with pytest.raises(Exception, match="score and consistency are 0"):
        built("model.losses.score=0", "model.losses.consistency=0")
    with pytest.raises(
        ConfigError, match=r"data\.image_size: 16 x 64; the layers of tf_efficientnet_lite0 want at least 32"
    ):
        built().check_size(16, 64)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # onnxscript and torch.export warn of their own ways
@torch.no_grad()
def test_it_leaves_as_one_onnx_graph(tmp_path):
    method, image = built(*TINY, "model.texture.ptfem_scales=[1,3]").eval(), batch(size=96).image
    wanted = method(image)
    anomaly_map, score = exported(method, image, tmp_path / "mlff.onnx")
    np.testing.assert_allclose(anomaly_map, wanted.anomaly_map, atol=1e-4)
    np.testing.assert_allclose(score, wanted.score, atol=1e-4)
