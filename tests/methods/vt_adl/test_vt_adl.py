"""VT-ADL as a whole: loss and score by terms, what each released difference does, recipes, errors, export."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from scipy.ndimage import gaussian_filter

from anomaly_lab.config.building import instantiate
from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.losses import ssim
from anomaly_lab.layers.maps import enlarged
from anomaly_lab.methods.vt_adl.method import VtAdl
from tests.methods.vt_adl.tiny import batch, images, made, step
from tests.support.export import exported
from tests.support.runs import checked, composed
from tests.support.training import PLAN, told


def test_the_loss_is_five_errors_minus_half_the_similarity_plus_the_tokens_likelihoods():
    method, image = made("model.latent_noise=0").train(), images(1)
    loss = method.training_step(batch(image), 0).item()
    with torch.no_grad():
        tokens = method.encoder(image)
        vector = tokens.flatten(1) @ method.bottleneck.weight.T
        picture = method.decoder(vector, (48, 48))
        nll = method.mixture(tokens).double().numpy()
    error = np.mean((picture.numpy().astype(float) - image.numpy()) ** 2)
    similarity = ssim(picture, image, "unit").double().mean().item()
    assert loss == pytest.approx(5 * error - 0.5 * similarity + nll.sum(axis=1).mean(), rel=1e-5)
    parts = {"loss/mse": 5 * error, "loss/ssim": -0.5 * similarity, "loss/nll": nll.sum(axis=1).mean()}
    assert method.logged == pytest.approx({"loss": loss, **parts}, rel=1e-4)


@torch.no_grad()
def test_the_released_score_adds_all_terms_and_its_sign_rewards_a_bad_reconstruction():
    image = images(2)
    signs = (f"model.ssim_sign={sign}" for sign in ("corrected", "released"))
    corrected, released = (made("model.image_score=terms", sign).eval() for sign in signs)
    error, similarity, nll = corrected.terms(image)
    largest = nll.max(dim=1).values
    torch.testing.assert_close(corrected(image).score, error + 1 - similarity + largest)
    torch.testing.assert_close(released(image).score, error + similarity + largest)
    assert similarity.abs().min() > 1e-4
    picture = corrected.panels(image)["reconstruction"]
    perfect = ssim(picture, picture, "unit").mean((1, 2, 3))
    # So only the released score of a perfect reconstruction is the higher one.
    assert (perfect > similarity).all()


@torch.no_grad()
def test_the_texts_score_is_the_training_loss_of_the_image_with_its_weights():
    weights = ("model.mse_weight=7", "model.ssim_weight=0.25", "model.nll_weight=0.5")
    method, image = made("model.image_score=loss", *weights).eval(), images(2)
    score = method(image).score
    for one, found in zip(image, score, strict=True):
        picture = method.panels(one[None])["reconstruction"].double()
        nll = method.mixture(method.encoder(one[None])).double().numpy()
        error = np.mean((picture[0].numpy() - one.double().numpy()) ** 2)
        unlike = 1 - ssim(one[None], picture, "unit").double().mean().item()
        assert found.item() == pytest.approx(7 * error + 0.25 * unlike + 0.5 * nll.sum(), rel=1e-5)
        loss = method.training_step(batch(one[None]), 0).item()
        assert found.item() == pytest.approx(loss + 0.25, rel=1e-5)  # 1 - SSIM for -SSIM, which ranks alike
    opposite = made("model.image_score=loss", "model.ssim_sign=released", *weights).eval()(image).score
    similarity = method.terms(image).similarity
    torch.testing.assert_close(opposite - score, 0.25 * (2 * similarity - 1), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_map_is_the_likelihoods_enlarged_between_corner_centres_then_smoothed():
    method, image = made("model.image_score=map_max").eval(), images(3, 2)
    prediction = method(image)
    coarse = method.terms(image).nll.view(2, 1, 4, 4).double()
    large = torch.nn.functional.interpolate(coarse, (48, 48), mode="bilinear", align_corners=True)[:, 0]
    wanted = np.stack([gaussian_filter(one, 4) for one in large.numpy()])
    np.testing.assert_allclose(prediction.anomaly_map, wanted, rtol=1e-5)
    np.testing.assert_allclose(prediction.score, wanted.max((1, 2)), rtol=1e-5)
    assert not torch.allclose(enlarged(coarse[:, 0], (48, 48), 4.0), prediction.anomaly_map)


def test_the_noise_is_on_in_training_only_and_reaches_both_ways():
    method, image = made().train(), images(4)
    first, second = method.terms(image), method.terms(image)
    assert not torch.equal(first.nll, second.nll)
    assert not torch.equal(first.error, second.error)
    seen = []
    method.mixture.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    many = images(5, 1).expand(200, -1, -1, -1)
    method.terms(many)
    noise = seen[0] - method.encoder(many)
    assert noise.std().item() == pytest.approx(0.2, rel=0.02)
    for quiet in (method.eval(), made("model.latent_noise=0").train()):
        assert torch.equal(quiet.terms(image).nll, quiet.terms(image).nll)


def test_routing_to_one_capsule_is_the_squashed_bottleneck_and_not_the_linear_one():
    kinds = ("capsule", "squashed_linear", "linear")
    capsule, squashed, linear = (made(f"model.bottleneck={kind}").eval() for kind in kinds)
    weights = capsule.state_dict()
    weights["bottleneck.weight"] = weights["bottleneck.weight"][0].permute(1, 0, 2).flatten(1)
    squashed.load_state_dict(weights)
    linear.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(squashed(images(6)), capsule(images(6)))
        pictures = [method.panels(images(6))["reconstruction"] for method in (squashed, linear)]
    assert not torch.allclose(*pictures, atol=1e-2)


def in_training(method: VtAdl) -> VtAdl:
    told(method).setup("fit")
    return method


def test_sums_of_gradients_of_changing_scales_are_refused():
    said = r"model.mixture_gradients: accumulated needs trainer.precision="
    method = made("model.mixture_gradients=accumulated")
    with pytest.raises(ConfigError, match=said):
        told(method, precision="16-mixed")
    for gradients, precision in (("accumulated", "bf16-mixed"), ("cleared", "16-mixed")):
        plan = told(made(f"model.mixture_gradients={gradients}"), precision=precision).plan
        assert plan == PLAN._replace(precision=precision)


@pytest.mark.parametrize("gradients", ["cleared", "accumulated"])
def test_accumulated_gradients_are_those_that_the_released_loop_never_clears(gradients):
    method = made(f"model.mixture_gradients={gradients}", "model.latent_noise=0")
    method = in_training(method.double().train())
    other = made("model.latent_noise=0").double().train()
    optimizer = method.configure_optimizers()
    plain = torch.optim.Adam(other.parameters(), lr=1e-3, weight_decay=1e-4)
    for seed in range(4):
        step(method, optimizer, images(seed).double())
        others = (other.encoder, other.bottleneck, other.decoder)
        for part in (*others, other.mixture) if gradients == "cleared" else others:
            part.zero_grad()
        other.training_step(batch(images(seed).double()), 0).backward()
        plain.step()
    method.on_fit_end()
    state = method.state_dict()
    for name, wanted in other.state_dict().items():
        torch.testing.assert_close(state[name], wanted, rtol=1e-6, atol=1e-9)


def test_what_is_accumulated_is_saved_in_a_training_and_not_with_the_weights():
    method = made("model.mixture_gradients=accumulated").train()
    weights = method.state_dict().keys()
    in_training(method)
    assert method.state_dict().keys() - weights == {"sums.weights", "sums.means", "sums.spreads"}
    step(method, method.configure_optimizers(), images(0))
    assert method.state_dict()["sums.means"].abs().sum() > 0
    method.on_fit_end()
    assert method.state_dict().keys() == weights


def test_a_defect_on_a_learned_texture_stands_out():
    rng = np.random.default_rng(7)

    def stripes(count: int) -> torch.Tensor:
        shift = torch.from_numpy(rng.integers(0, 12, (count, 1, 1, 1)))
        wave = 0.5 + 0.4 * torch.sin((torch.arange(48) + shift) * 2 * np.pi / 12)
        return wave.repeat(1, 3, 48, 1).float()

    method = made("model.learning_rate=0.003").train()
    optimizer = method.configure_optimizers()
    for _ in range(120):
        step(method, optimizer, stripes(8))
    normal, spoiled = stripes(8), stripes(8)
    spoiled[:, :, 12:24, 24:36] = spoiled[:, :, 12:24, 24:36].transpose(2, 3)
    with torch.no_grad():
        good, bad = method.eval().terms(normal).nll, method.terms(spoiled).nll
        exact = method(torch.cat([normal, spoiled]))
        with torch.autocast("cpu", torch.bfloat16):
            mixed = method(torch.cat([normal, spoiled]))
    assert bad[:, 6].min() > good[:, 6].max()
    assert bad.mean(dim=0).argmax() == 6
    # bf16 rounds to three digits; a squared difference to what it rounds would be off by whole units here.
    assert mixed.anomaly_map.dtype == mixed.score.dtype == torch.float32
    assert not torch.equal(mixed.score, exact.score)
    np.testing.assert_allclose(mixed.anomaly_map, exact.anomaly_map, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(mixed.score, exact.score, atol=0.01)


def flat(recipe: str) -> dict[str, object]:
    return {leaf.path: leaf.value for leaf in checked(f"model={recipe}", "data=demo").leaves}


RELEASED = {
    "model.bottleneck": "capsule",
    "model.encoder.scale": "dim",
    "model.image_score": "terms",
    "model.mixture.clamp": "positive",
    "model.mixture.gaussians": 10,
    "model.mixture.likelihood": "expected",
    "model.mixture.variance": "softplus_as_log",
    "model.mixture_gradients": "accumulated",
    "model.ssim_sign": "released",
}
# What is a size, and in the small recipes reduced to one and the same.
SIZES = {
    "model.encoder.patch_size": 64,
    "model.decoder.layers": [
        [16, 3, 2, 1], [32, 9, 3, 1], [32, 7, 5, 1], [16, 9, 2, 0], [8, 6, 1, 0], [3, 11, 1, 0]
    ],
}  # fmt: skip


@pytest.mark.parametrize(("size", "wanted"), [("", RELEASED | SIZES), ("_small", RELEASED)])
def test_the_released_recipe_differs_in_named_fields_alone(size, wanted):
    ours, released = flat(f"vt_adl{size}"), flat(f"vt_adl_released{size}")
    assert {key: value for key, value in released.items() if ours[key] != value} == wanted
    assert ours.keys() == released.keys()


@pytest.mark.parametrize(
    ("recipe", "encoder", "bottleneck", "end", "gaussians"),
    [
        ("vt_adl", 14_312_960, 256 * 512 * 512, ((16, 3, 16),), 78_720_000),
        ("vt_adl_released", 18_933_248, 2**24, ((16, 8, 6), (8, 3, 11)), 5_248_000),
    ],
)
def test_the_full_recipes_have_the_texts_and_the_codes_sizes(recipe, encoder, bottleneck, end, gaussians):
    cfg = composed(f"model={recipe}", "data=demo")
    sizes = {"image_size": 550, "center_crop": 512, "batch_size": 8}
    assert {key: cfg.data[key] for key in sizes} == sizes
    with torch.device("meta"):
        method = instantiate(cfg.model, _convert_="all")
    method.check_size(512, 512)
    parts = (part for part in method.named_children() if part[0] != "sums")
    counts = OrderedDict((name, sum(p.numel() for p in part.parameters())) for name, part in parts)
    layers = ((8, 16, 3), (16, 32, 9), (32, 32, 7), (32, 16, 9), *end)
    decoder = sum(a * b * k * k + b for a, b, k in layers) + 2 * sum(b for _, b, _ in layers[:-1])
    wanted = {"encoder": encoder, "bottleneck": bottleneck, "decoder": decoder, "mixture": gaussians}
    assert counts == wanted
    assert method.decoder.sides[-1] == 512


@pytest.mark.parametrize("size", ["[96,48]", "24", "60"])
def test_any_multiple_of_the_patch_is_scored(size):
    method = made(f"data.image_size={size}").eval()
    sides = OmegaConf.create(size) if size.startswith("[") else [int(size)] * 2
    method.check_size(*sides)
    with torch.no_grad():
        prediction = method(torch.rand(2, 3, *sides))
    assert prediction.anomaly_map.shape == (2, *sides)
    assert method.panels(torch.rand(2, 3, *sides))["reconstruction"].shape == (2, 3, *sides)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.encoder.patch_size=7", "model.encoder.patch_size: 7 does not divide 48 x 48"),
        ("model.encoder.heads=3", "model.encoder.heads: 3 do not divide model.encoder.dim=16"),
        ("model.encoder.position_std=-1", "model.encoder.position_std: -1.*give at least 0"),
        ("model.encoder.depth=0", "depth, heads and mlp_dim must be at least 1"),
        ("model.encoder.image_size=[48]", r"model.encoder.image_size: \[48\]; give one side or"),
        ("model.encoder.image_size=null", "model.encoder.image_size=\\${data.image_size}"),
        ("model.capsule_dim=5", "model.capsule_dim: 5 does not divide model.encoder.dim=16"),
        ("model.routing_iterations=0", "at least 1 iteration"),
        ("model.learning_rate=0", "give a rate above 0"),
        ("model.latent_noise=-0.1", "model.latent_noise: -0.1; give at least 0"),
        ("model.mixture.gaussians=0", "model.mixture.gaussians: 0; give at least 1"),
        ("model.mixture.variance_floor=0", "model.mixture.variance_floor: 0.*above 0"),
        ("model.decoder.side=3", "model.decoder.side: 3; 3 x 3 values do not divide the 16 of the vector"),
        ("model.decoder.layers=[[3,1,1,4]]", "model.decoder.layers: \\[3, 1, 1, 4\\] makes a side of -6"),
        ("model.decoder.layers=[[4,4,2,1]]", "must have 3 channels"),
    ],
)
def test_a_wrong_value_names_its_key_and_the_way_out(change, message):
    with pytest.raises((ConfigError, InstantiationException)) as caught:
        made(change)
    error = caught.value if isinstance(caught.value, ConfigError) else caught.value.__cause__
    assert isinstance(error, ConfigError)
    assert "\n" not in str(error)
    with pytest.raises(ConfigError, match=message):
        raise error


def test_images_of_another_size_than_the_positions_are_refused():
    said = r"model.encoder.image_size: 48 x 48, but images have 96 x 48; give it"
    with pytest.raises(ConfigError, match=said):
        made().check_size(96, 48)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # onnxscript and torch.export warn of their own ways
@torch.no_grad()
def test_the_whole_method_leaves_as_one_graph(tmp_path):
    method = made().eval()
    anomaly_map, score = exported(method, images(8), tmp_path / "vt_adl.onnx")
    wanted = method(images(8))
    np.testing.assert_allclose(anomaly_map, wanted.anomaly_map, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(score, wanted.score, rtol=1e-4)
