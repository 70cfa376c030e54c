"""VT-ADL's decoder: the sides that the released layers reach, and what is resized."""

import torch

from anomaly_lab.layers.vector_decoder import VectorDecoder

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
