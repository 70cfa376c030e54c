"""VT-ADL's encoder against what it is on paper: counts, and a loop in NumPy's float64."""

import math

import numpy as np
import pytest
import torch
from scipy.special import erf, softmax

from anomaly_lab.methods.vt_adl.patch_transformer import PatchTransformer


def test_the_papers_size_has_the_papers_parameters():
    with torch.device("meta"):
        encoders = [PatchTransformer(512, side, 512, 6, 8, 1024, "dim", 1.0) for side in (32, 64)]
    block = 2 * 2 * 512 + 512 * 3 * 512 + (512 * 512 + 512) + (512 * 1024 + 1024) + (1024 * 512 + 512)
    for encoder, side, wanted in zip(encoders, (32, 64), (14_312_960, 18_933_248), strict=True):
        patches, places = 3 * side**2 * 512 + 512, ((512 // side) ** 2 + 1 + 1) * 512
        assert sum(p.numel() for p in encoder.parameters()) == patches + places + 6 * block == wanted
        assert encoder.grid == (512 // side, 512 // side)


def normed(x: np.ndarray, norm: torch.nn.LayerNorm) -> np.ndarray:
    weight, bias = (p.detach().double().numpy() for p in (norm.weight, norm.bias))
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + norm.eps) * weight + bias


def mapped(x: np.ndarray, layer: torch.nn.Module) -> np.ndarray:
    bias = 0 if layer.bias is None else layer.bias.detach().double().numpy()
    return x @ layer.weight.detach().double().flatten(1).numpy().T + bias


@pytest.mark.parametrize("scale", ["dim", "head_dim"])
def test_the_encoder_is_the_papers_written_out(scale):
    torch.manual_seed(1)
    encoder = PatchTransformer([8, 12], 4, 6, 2, 3, 10, scale, 1.0)
    for p in encoder.parameters():  # biases and norms that could hide a mistake are not 0 and 1
        p.data += 0.1 * torch.randn_like(p)
    image = torch.rand(2, 3, 8, 12)
    pixels, found = image.double().numpy(), encoder(image).detach().numpy()
    for b in range(2):
        corners = [(4 * i, 4 * j) for i in range(2) for j in range(3)]
        patches = [pixels[b, :, top : top + 4, left : left + 4].ravel() for top, left in corners]
        tokens = mapped(np.array(patches), encoder.embed)
        x = np.concatenate([encoder.class_token[0].detach().numpy(), tokens])
        x = x + encoder.place[0].detach().double().numpy()
        for block in encoder.blocks:
            query, key, value = np.split(mapped(normed(x, block.attention_norm), block.qkv), 3, axis=1)
            heads = []
            for h in range(3):
                own = slice(2 * h, 2 * h + 2)
                products = query[:, own] @ key[:, own].T / math.sqrt(6 if scale == "dim" else 2)
                heads.append(softmax(products, axis=1) @ value[:, own])
            x = x + mapped(np.concatenate(heads, axis=1), block.out)
            hidden = mapped(normed(x, block.mlp_norm), block.mlp[0])
            x = x + mapped(hidden * (1 + erf(hidden / math.sqrt(2))) / 2, block.mlp[2])
        np.testing.assert_allclose(found[b], x[1:], atol=2e-5)


def test_the_encoder_starts_as_released():
    torch.manual_seed(2)
    encoder = PatchTransformer(64, 16, 256, 1, 4, 128, "dim", 1.0)
    layers = [encoder.embed, encoder.blocks[0].qkv, encoder.blocks[0].mlp[2]]
    for layer, inputs in zip(layers, (768, 256, 128), strict=True):
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=0.02)
    assert encoder.embed.bias.abs().max() == 0
    assert encoder.place.std().item() == pytest.approx(1, rel=0.05)
    torch.manual_seed(2)
    other = PatchTransformer(64, 16, 256, 1, 4, 128, "dim", 0.02)
    torch.testing.assert_close(other.place, 0.02 * encoder.place)  # the key changes nothing else
    torch.testing.assert_close(other.embed.weight, encoder.embed.weight)
