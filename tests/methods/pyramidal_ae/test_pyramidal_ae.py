"""The pyramidal autoencoder: its sizes, its wiring written out, what is detached, its score's ranges."""

import pytest
import torch
from hydra.errors import InstantiationException

from anomaly_lab.config.building import built, instantiate
from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.pyramidal_ae.levels import PyramidLevel
from anomaly_lab.types import TrainBatch
from tests.support.features import noise
from tests.support.runs import composed
from tests.support.training import told

IMAGE = noise(4, 3, 64, 64)
BATCH = TrainBatch(1 - IMAGE, IMAGE, torch.zeros(3, 64, 64).bool(), torch.zeros(3).bool())


def small(*overrides: str, **changes):
    torch.manual_seed(0)
    random = ["model.backbone.weights=random", "model.perceptual.weights=random"]
    recipe = composed("model=pyramidal_ae_small", "data=demo", *random, *overrides).model
    method = told(built(recipe), **changes)
    method.log_dict = lambda *_, **__: None
    return method


def test_the_sizes_of_the_text_are_counted_part_by_part():
    with torch.device("meta"):
        method = instantiate(composed("model=pyramidal_ae", "data=demo").model, _convert_="all")
    counts = {name: sum(w.numel() for w in part.parameters()) for name, part in method.named_children()}
    levels = 0
    for width in (512, 256, 128, 64):
        levels += 512 * width + 2 * width  # 1 x 1 without bias, batch norm
        levels += 9 * width * 16 + 16 + 32 + 9 * 16 * 8 + 8 + 16 + 8 * 8 + 8  # to the latent vector
        levels += 8 * 128 + 128 + 256 + 128 * 512 + 512 + 1024 + 512 * 512 + 512  # back to the features
    decoder = 9 * 32 * 16 + 16 + 32 + 9 * 16 * 32 + 32 + 64 + 16 * 32 * 32 + 32 + 64 + 16 * 32 * 3 + 3
    assert counts == {"backbone": 11_176_512, "levels": levels, "decoder": decoder, "perceptual": 75_648}
    assert method.decoder.sides == [15, 29, 60, 120]
    assert method.decoder.channels == 32  # 2048 = 32 x 8 x 8


def test_a_level_is_a_chain_of_products_on_one_place():
    """In the middle of a 3 x 3 kernel is all that reaches a single place."""
    torch.manual_seed(1)
    level = PyramidLevel(32, 4).double().eval()
    pooled = torch.randn(5, 32, dtype=torch.float64)

    def normed(norm, x):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return ((x - norm.running_mean) * scale + norm.bias).relu()

    with torch.no_grad():
        for norm in (part for part in level.modules() if isinstance(part, torch.nn.BatchNorm2d)):
            norm.running_mean.normal_()
            norm.weight.uniform_(0.5, 2)
        (first, norm, _), (second, norm2, _), (third, norm3, _), last = level.encoder
        x = normed(norm, pooled @ first.weight[:, :, 0, 0].T)
        x = normed(norm2, x @ second.weight[:, :, 1, 1].T + second.bias)
        x = normed(norm3, x @ third.weight[:, :, 1, 1].T + third.bias)
        latent = x @ last.weight[:, :, 0, 0].T + last.bias
        torch.testing.assert_close(level.encode(pooled), latent)
        one, norm, _, two, norm2, _, three, _ = level.decoder
        y = normed(norm, latent @ one.weight[:, :, 0, 0].T + one.bias)
        y = normed(norm2, y @ two.weight[:, :, 0, 0].T + two.bias)
        y = (y @ three.weight[:, :, 0, 0].T + three.bias).relu()
        torch.testing.assert_close(level.decode(latent), y)


def wanted_terms(method, image):
    """Return the (B, 3) terms, step by step."""
    pooled = method.backbone(image)[-1].mean((2, 3))
    decoded = torch.stack([level.decode(level.encode(pooled)) for level in method.levels], 1)
    picture = method.decoder(decoded.reshape(len(image), -1), image.shape[2:])
    error = (picture - image).square().mean((1, 2, 3))
    features = [method.perceptual.features(one) for one in (picture, image)]
    feature = torch.stack([(decoded[:, p] - pooled).square().mean(1) for p in range(4)]).mean(0)
    return torch.stack([error, (features[0] - features[1]).square().mean((1, 2, 3)), feature], 1)


def test_the_loss_weighs_three_terms_of_the_clean_image_and_the_noise_is_of_training_alone():
    method = small("model.mse_weight=2", "model.perceptual_weight=0.3", "model.feature_weight=5").eval()
    with torch.no_grad():
        terms = wanted_terms(method, IMAGE).mean(0)
        torch.testing.assert_close(method.training_step(BATCH, 0), terms @ torch.tensor([2, 0.3, 5]))
        torch.testing.assert_close(method(IMAGE).score, wanted_terms(method, IMAGE).sum(1))  # no ranges yet
        pooled = method.backbone(IMAGE)[-1].mean((2, 3))
        wanted = torch.cat([level.encode(pooled) for level in method.levels], 1)
        torch.testing.assert_close(method.latents(IMAGE)["latent"], wanted)
        for part in (method.levels, method.decoder):  # noise alone, with the norms' statistics as they are
            part.eval()
        method.training = True
        first, again = (method.errors(IMAGE).mse for _ in range(2))
        assert not torch.allclose(first, again)
        method.latent_noise = 0
        torch.testing.assert_close(method.errors(IMAGE).mse, method.errors(IMAGE).mse, rtol=0, atol=0)


def test_the_noise_has_the_recipes_deviation():
    method, drawn = small().eval(), []
    method.training = True
    method.levels[0].encode = method.levels[1].encode = method.levels[2].encode = method.levels[3].encode = (
        lambda pooled: torch.zeros(len(pooled), 8)
    )
    for level in method.levels:
        level.decode = lambda latent: (drawn.append(latent), torch.zeros(len(latent), 320))[1]
    with torch.no_grad():
        for _ in range(30):
            method.errors(IMAGE)
    assert abs(torch.cat(drawn).std().item() - 0.2) < 0.02
    assert not torch.equal(drawn[0], drawn[1])  # each level has its own


def test_the_feature_term_moves_what_decodes_and_not_its_target():
    method = small().train()
    method.errors(IMAGE).feature.sum().backward()
    # Through the encoders the features get a gradient, through the target they do not.
    with_target = torch.cat([w.grad.flatten() for w in method.backbone.parameters() if w.grad is not None])
    assert with_target.abs().max() > 0
    method = small().train()
    for level in method.levels:
        encode = level.encode
        level.encode = lambda pooled, encode=encode: encode(pooled.detach())
    method.errors(IMAGE).feature.sum().backward()
    assert all(weight.grad is None for weight in method.backbone.parameters())
    assert all(w.grad is not None for level in method.levels for w in level.decoder.parameters())


def test_the_score_scales_each_term_by_its_range_over_the_kept_normals():
    kept = [noise(seed, 2, 64, 64) for seed in (5, 6)]
    method = small(kept=kept, normals=[IMAGE]).train()
    method.on_train_end()
    assert method.training
    method.eval()
    with torch.no_grad():
        terms = torch.cat([wanted_terms(method, few) for few in kept])
        low, span = terms.amin(0), terms.amax(0) - terms.amin(0)
        torch.testing.assert_close(method.ranges_, torch.stack([low, span], 1), rtol=1e-3, atol=1e-6)
        # Rounding of a term weighs more, the narrower its range.
        wanted = ((wanted_terms(method, IMAGE) - low) / span).sum(1)
        torch.testing.assert_close(method(IMAGE).score, wanted, rtol=1e-2, atol=1e-2)
        scaled = torch.cat([method(few).score for few in kept])
    assert scaled.min() >= 0
    assert scaled.max() <= 3 + 1e-4


@pytest.mark.parametrize("count", [0, 1])
def test_with_too_few_kept_normals_the_training_images_give_the_ranges_and_it_is_said(count, caplog):
    method = small(kept=[IMAGE[:count]] if count else [], normals=[IMAGE]).eval()
    with caplog.at_level("WARNING"):
        method.on_train_end()
    assert f"data.holdout keeps {count} normal images" in caplog.text
    with torch.no_grad():
        terms = wanted_terms(method, IMAGE)
    torch.testing.assert_close(method.ranges_[:, 0], terms.amin(0), rtol=1e-4, atol=1e-6)


def test_a_term_without_a_range_is_taken_as_it_is():
    method = small(normals=[IMAGE[:1]]).eval()
    method.on_train_end()
    assert method.ranges_[:, 1].tolist() == [1.0, 1.0, 1.0]
    assert method(IMAGE).score.isfinite().all()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.reductions=[1,7]", "model.reductions: 7 does not divide 320 channels"),
        ("model.reductions=[]", r"model\.reductions=\[\]: give a rate above 0 and at least one level"),
        ("model.latent_noise=-0.1", "model.latent_noise: -0.1; give at least 0"),
        ("model.feature_weight=-1", "model.feature_weight: -1; give at least 0"),
        ("model.decoder.side=7", "model.decoder.side: 7; 7 x 7 values do not divide the 1280 of the vector"),
    ],
)
def test_values_that_cannot_be_are_named(override, said):
    with pytest.raises(InstantiationException) as caught:
        small(override)
    with pytest.raises(ConfigError, match=said):
        raise caught.value.__cause__
