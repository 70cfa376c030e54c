"""VT-ADL's decoder: the sides that its five or six layers reach, its sums written out, what is resized."""

import numpy as np
import torch

from anomaly_lab.layers.vector_decoder import VectorDecoder

TEXT = [[16, 3, 2, 1], [32, 9, 3, 1], [32, 7, 5, 1], [16, 9, 2, 0], [3, 16, 1, 0]]
RELEASED = [[16, 3, 2, 1], [32, 9, 3, 1], [32, 7, 5, 1], [16, 9, 2, 0], [8, 6, 1, 0], [3, 11, 1, 0]]


def test_the_released_decoder_reaches_512_pixels_by_itself():
    decoder, seen = VectorDecoder(512, 8, RELEASED).eval(), []
    for part in [*decoder.hidden, decoder.out]:
        if isinstance(part, torch.nn.ConvTranspose2d):
            part.register_forward_hook(lambda _, inputs, output: seen.append(tuple(output.shape[1:])))
    with torch.no_grad():
        assert decoder(torch.zeros(1, 512), (512, 512)).shape == (1, 3, 512, 512)
    assert seen == [(16, 15, 15), (32, 49, 49), (32, 245, 245), (16, 497, 497), (8, 502, 502), (3, 512, 512)]
    assert decoder.sides == [15, 49, 245, 497, 502, 512]


def test_five_transposed_convolutions_reach_512_pixels_by_themselves():
    assert VectorDecoder(512, 8, TEXT).sides == [15, 49, 245, 497, 512]
    # One kernel of 16 has the reach of the released 6 and 11, one after the other, which it stands for.
    assert TEXT[:4] == RELEASED[:4]
    assert TEXT[4][1] == RELEASED[4][1] + RELEASED[5][1] - 1


def spread(x: np.ndarray, layer: torch.nn.ConvTranspose2d) -> np.ndarray:
    """Return (C, h, w) after a transposed convolution: each pixel lays its kernel down at its place."""
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
    side = (x.shape[1] - 1) * stride + kernel
    out = np.zeros((weight.shape[1], side, side))
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            stamp = np.einsum("a,abij->bij", x[:, row, column], weight)
            out[:, row * stride :, column * stride :][:, :kernel, :kernel] += stamp
    return out[:, padding : side - padding, padding : side - padding] + bias[:, None, None]


def test_five_layers_are_transposed_convolutions_written_out():
    torch.manual_seed(1)
    decoder = VectorDecoder(12, 2, [[4, 3, 2, 1], [3, 5, 3, 1], [3, 4, 2, 0], [2, 3, 1, 0], [3, 4, 1, 0]])
    for norm in (part for part in decoder.hidden if isinstance(part, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.running_mean, -0.1, 0.1)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
        torch.nn.init.uniform_(norm.weight, 0.5, 2)
    vector, side = torch.randn(2, 12), decoder.sides[-1]
    with torch.no_grad():
        found = decoder.eval()(vector, (side, side)).numpy()
    for one, picture in zip(vector.double().numpy(), found, strict=True):
        x = one.reshape(3, 2, 2)
        for layer, norm in zip(decoder.hidden[::3], decoder.hidden[1::3], strict=True):
            mean, var = (v.double().numpy()[:, None, None] for v in (norm.running_mean, norm.running_var))
            weight = norm.weight.detach().double().numpy()[:, None, None]
            x = np.maximum((spread(x, layer) - mean) / np.sqrt(var + norm.eps) * weight, 0)
        np.testing.assert_allclose(picture, np.tanh(spread(x, decoder.out)), atol=1e-5)


def test_the_decoder_resizes_only_what_its_layers_miss():
    torch.manual_seed(0)
    decoder = VectorDecoder(32, 2, [[6, 4, 2, 1], [3, 4, 2, 1]]).eval()
    vector = torch.randn(3, 32)
    with torch.no_grad():
        plain = decoder.out(decoder.hidden(vector.view(3, 8, 2, 2))).tanh()
        assert torch.equal(decoder(vector, (8, 8)), plain)
        assert decoder(vector, (12, 4)).shape == (3, 3, 12, 4)
        larger = decoder(vector, (16, 16))
        wanted = torch.nn.functional.interpolate(plain.double(), (16, 16), mode="bilinear")
    torch.testing.assert_close(larger.double(), wanted, atol=1e-6, rtol=0)
