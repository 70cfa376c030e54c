"""The maps of a reconstruction alone, against SciPy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from anomaly_lab.layers.losses import ssim
from anomaly_lab.layers.similarity import gradient_magnitude, msgms_map, ssim_map


def pair(size: tuple[int, int] = (32, 48)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(2, 3, *size, generator=generator)
    return image, (image + 0.3 * torch.rand(2, 3, *size, generator=generator)).clamp(0, 1)


def enlarged(values: np.ndarray, factor: int) -> np.ndarray:
    """Bilinear with shared edges, along one axis after the other."""
    for axis in (0, 1):
        count = values.shape[axis]
        at = np.clip((np.arange(count * factor) + 0.5) / factor - 0.5, 0, count - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, count - 1)
        share = np.expand_dims(at - low, 1 - axis)
        values = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    return values


def magnitude(grey: np.ndarray) -> np.ndarray:
    across = np.array([[1, 0, -1]] * 3) / 3
    return np.hypot(convolve(grey, across, mode="nearest"), convolve(grey, across.T, mode="nearest"))


def test_msgms_equals_one_written_out_in_float64():
    image, other = pair()
    ours = msgms_map(other, image)
    for row in range(2):
        x, y = (values[row].double().numpy().mean(0) for values in (other, image))
        likeness = np.zeros(x.shape)
        for scale in range(4):
            g, h = magnitude(x), magnitude(y)
            likeness += enlarged((2 * g * h + 0.0026) / (g**2 + h**2 + 0.0026), 2**scale) / 4
            x, y = (v.reshape(len(v) // 2, 2, -1, 2).mean((1, 3)) for v in (x, y))
        np.testing.assert_allclose(ours[row], 1 - likeness, atol=2e-5)
    assert ours.std() > 0.01


def test_a_ramp_has_its_slope_as_gradient_and_its_border_none_of_its_own():
    ramp = torch.arange(12.0).expand(1, 1, 8, 12) / 10
    found = gradient_magnitude(ramp)[0, 0]
    torch.testing.assert_close(found[:, 1:-1], torch.full((8, 10), 0.2))
    torch.testing.assert_close(found[:, [0, -1]], torch.full((8, 2), 0.1))


def test_ssim_map_is_one_less_the_channels_mean_and_looks_at_each_image_alone():
    image, other = pair()
    torch.testing.assert_close(ssim_map(other, image), 1 - ssim(other, image, "unit").mean(1))
    far = torch.cat([other[:1], 300 * other[1:]])  # a guess of the range would change the first row, too
    torch.testing.assert_close(ssim_map(far, image)[0], ssim_map(other, image)[0])


@pytest.mark.parametrize("compare", [ssim_map, msgms_map])
def test_an_image_resembles_itself(compare):
    image, other = pair()
    torch.testing.assert_close(compare(image, image), torch.zeros(2, 32, 48), atol=1e-5, rtol=0)
    assert compare(other, image).amax((1, 2)).min() > 0.05
    assert compare(other.bfloat16(), image.bfloat16()).dtype == torch.float32
