"""The plain autoencoder: its layers written out, its loss as map and score, recipes, errors, export."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from scipy.signal import correlate2d
from torch import Tensor, nn

from anomaly_lab.config.building import instantiate
from anomaly_lab.errors import ConfigError
from anomaly_lab.layers.losses import ssim
from anomaly_lab.methods.autoencoder import Autoencoder, MirroredConvolutions
from tests.support.export import exported
from tests.support.features import noise
from tests.support.runs import checked, composed
from tests.support.train_batches import unlabelled

TABLE = [[32, 4, 2], [32, 4, 2], [32, 3, 1], [64, 4, 2], [64, 3, 1], [128, 4, 2], [64, 3, 1], [32, 3, 1]]
TINY = ("data.image_size=16", "model.network.layers=[[6,4,2],[5,3,1],[4,4,2]]", "model.network.latent_dim=7")


@lru_cache
def tiny(recipe: str) -> DictConfig:
    return composed(f"model={recipe}", "data=demo", *TINY)


def made(*overrides: str, recipe: str = "ae_mse_ssim_small") -> Autoencoder:
    torch.manual_seed(0)
    cfg = OmegaConf.merge(tiny(recipe), OmegaConf.from_dotlist(overrides))
    method = instantiate(cfg.model, _convert_="all")
    method.log_dict = lambda values: setattr(method, "logged", values)
    return method


def shrunk(x: np.ndarray, layer: nn.Conv2d) -> np.ndarray:
    """Return (C, h, w) after a convolution: SciPy's correlation, of which every stride-th value is kept."""
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    pad, stride = layer.padding[0], layer.stride[0]
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    rows = [sum(correlate2d(c, k, "valid") for c, k in zip(x, row, strict=True)) for row in weight]
    return np.array(rows)[:, ::stride, ::stride] + bias[:, None, None]


def spread(x: np.ndarray, layer: nn.ConvTranspose2d) -> np.ndarray:
    """Return (C, h, w) after a transposed convolution: each pixel lays its kernel down at its place."""
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    kernel, stride, pad = layer.kernel_size[0], layer.stride[0], layer.padding[0]
    side = (x.shape[1] - 1) * stride + kernel
    out = np.zeros((weight.shape[1], side, side))
    for row, column in np.ndindex(x.shape[1:]):
        place = out[:, row * stride : row * stride + kernel, column * stride : column * stride + kernel]
        place += np.einsum("a,abij->bij", x[:, row, column], weight)
    return out[:, pad : side - pad, pad : side - pad] + bias[:, None, None]


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x)


@torch.no_grad()
def test_the_network_is_its_convolutions_written_out_and_linear_where_it_ends():
    network, images = made().network.eval(), noise(2, 2, 16, 16)
    for image, found in zip(images.double().numpy(), network(images), strict=True):
        x = image
        *down, vector = [layer for layer in network.encoder if isinstance(layer, nn.Conv2d)]
        for layer in down:
            x = leaky(shrunk(x, layer))
        x = shrunk(x, vector)
        assert x.shape == (7, 1, 1)
        for layer in (layer for layer in network.decoder if isinstance(layer, nn.ConvTranspose2d)):
            x = leaky(spread(x, layer))
        np.testing.assert_allclose(found, spread(x, network.out), atol=1e-5)


def test_the_small_recipe_has_the_layers_of_the_table():
    recipe = composed("model=ae_mse_small", "data=demo").model.network
    assert (OmegaConf.to_container(recipe.layers), recipe.latent_dim) == (TABLE, 100)
    assert recipe.negative_slope == 0.2
    network = MirroredConvolutions(128, TABLE, 100, 0.2)
    seen = []
    for layer in (*network.encoder, *network.decoder, network.out):
        if not isinstance(layer, nn.LeakyReLU):
            layer.register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape[1:])))
    network(torch.zeros(1, 3, 128, 128))
    maps = [(32, 64), (32, 32), (32, 32), (64, 16), (64, 16), (128, 8), (64, 8), (32, 8)]
    mirrored = [*reversed(maps), (3, 128)]
    assert seen == [(c, s, s) for c, s in maps] + [(100, 1, 1)] + [(c, s, s) for c, s in mirrored]
    pairs = ((3, 32, 4), (32, 32, 4), (32, 32, 3), (32, 64, 4), (64, 64, 3), (64, 128, 4))
    pairs += ((128, 64, 3), (64, 32, 3), (32, 100, 8))
    wanted = sum(2 * a * b * k * k + a + b for a, b, k in pairs)  # each once down and once up
    assert sum(p.numel() for p in network.parameters()) == wanted == 1_050_599


@torch.no_grad()
@pytest.mark.parametrize("weights", [(1.0, 0.0), (5.0, 0.5), (0.0, 1.0)])
def test_the_map_has_the_terms_of_the_loss_and_the_score_is_their_mean(weights):
    keys = [f"model.mse_weight={weights[0]}", f"model.ssim_weight={weights[1]}"]
    method, image = made(*keys).eval(), noise(3, 4, 16, 16)
    found, picture = method(image), method.panels(image)["reconstruction"].double()
    error = ((picture - image.double()) ** 2).numpy()
    unlike = 1 - ssim(image.double(), picture, "unit").double().numpy()
    wanted = np.mean([weights[0] * error[:, c] + weights[1] * unlike[:, c] for c in range(3)], axis=0)
    np.testing.assert_allclose(found.anomaly_map, wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.score, wanted.mean((1, 2)), rtol=1e-5)
    loss = method.training_step(unlabelled(image), 0).item()
    assert loss == pytest.approx(wanted.mean(), rel=1e-5) == method.logged["loss"].item()
    top = made(*keys, "model.image_score=map_max").eval()(image).score
    np.testing.assert_allclose(top, wanted.max((1, 2)), rtol=1e-4)


@pytest.mark.parametrize("recipe", ["ae_mse_small", "ae_mse_ssim_small"])
def test_a_defect_on_a_learned_texture_stands_out(recipe):
    rng = np.random.default_rng(5)

    def stripes(count: int) -> Tensor:
        shift = torch.from_numpy(rng.random((count, 1, 1, 1)))
        wave = 0.5 + 0.4 * torch.sin(torch.arange(16) / 2 + 6.28 * shift)
        return wave.expand(count, 3, 16, 16).float()

    method = made("model.learning_rate=0.01", recipe=recipe).train()
    optimizer = method.configure_optimizers()
    for _ in range(120):
        optimizer.zero_grad()
        method.training_step(unlabelled(stripes(8)), 0).backward()
        optimizer.step()
    normal, spoiled = stripes(8), stripes(8)
    spoiled[:, :, 5:10, 6:11] = 1 - spoiled[:, :, 5:10, 6:11]
    with torch.no_grad():
        good, bad = method.eval()(normal), method(spoiled)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = method(normal)
    assert bad.score.min() > good.score.max()
    assert bad.anomaly_map[:, 5:10, 6:11].mean() > 2 * bad.anomaly_map[:, :, :4].mean()
    assert mixed.anomaly_map.dtype == mixed.score.dtype == torch.float32


def flat(recipe: str) -> dict[str, object]:
    return {leaf.path: leaf.value for leaf in checked(f"model={recipe}", "data=demo").leaves}


@pytest.mark.parametrize("size", ["", "_small"])
def test_the_two_recipes_differ_in_the_weights_of_their_terms_alone(size):
    mse, both = flat(f"ae_mse{size}"), flat(f"ae_mse_ssim{size}")
    changed = {key: (mse[key], value) for key, value in both.items() if mse[key] != value}
    assert changed == {"model.mse_weight": (1.0, 5.0), "model.ssim_weight": (0.0, 0.5)}
    ours = flat("vt_adl")
    assert all(both[key] == ours[key] for key in changed)  # VT-ADL's own
    with torch.device("meta"):
        network = instantiate(composed(f"model=ae_mse{size}", "data=demo").model, _convert_="all").network
    assert network.encoder[-1].kernel_size == (8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.network.layers=[]", "at least one of layers"),
        ("model.network.latent_dim=0", "latent_dim of at least 1"),
        ("model.network.layers=[[4,3,2]]", r"model.network.layers: \[4, 3, 2\]; .*both odd or both even"),
        ("model.network.layers=[[4,2,4]]", r"\[4, 2, 4\]; a kernel of at least the stride"),
        ("model.network.layers=[[0,4,2]]", "all at least 1"),
        ("model.network.image_size=[16]", r"model.network.image_size: \[16\]; give one side or"),
        ("model.network.image_size=18", "the strides make 4, which does not divide 18 x 18"),
        ("model.mse_weight=-1", "model.mse_weight=-1.*give weights of at least 0"),
        ("model.learning_rate=0", "give a rate above 0"),
        ("model.weight_decay=-1", "a decay of at least 0"),
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


def test_weights_of_nothing_and_images_of_another_size_are_refused():
    with pytest.raises((ConfigError, InstantiationException), match="one of them above 0"):
        made("model.mse_weight=0", "model.ssim_weight=0")
    with pytest.raises(ConfigError, match=r"model.network.image_size: 16 x 16, but images"):
        made().check_size(32, 16)
    oblong = made("model.network.image_size=[8,16]").eval()
    oblong.check_size(8, 16)
    with torch.no_grad():
        assert oblong(torch.rand(2, 3, 8, 16)).anomaly_map.shape == (2, 8, 16)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # onnxscript and torch.export warn of their own ways
@torch.no_grad()
def test_the_whole_method_leaves_as_one_graph(tmp_path):
    method, image = made().eval(), noise(4, 3, 16, 16)
    anomaly_map, score = exported(method, image, tmp_path / "autoencoder.onnx")
    wanted = method(image)
    np.testing.assert_allclose(anomaly_map, wanted.anomaly_map, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(score, wanted.score, rtol=1e-4)
