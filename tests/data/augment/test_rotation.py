"""Rotation of normal images: against SciPy, its probability and its range."""

import numpy as np
from scipy import ndimage

from anomaly_lab.data.augment.rotation import Rotation


def test_rotation_is_scipys(tmp_path):
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.uniform(0, 255, (61, 80, 3)), (2, 2, 0))
    image = ((image - image.min()) * 255 / np.ptp(image)).astype(np.uint8)
    for degrees in (30.0, -70.0):
        turned = Rotation(1.0, [degrees, degrees])(image, rng)
        wanted = ndimage.rotate(image.astype(float), degrees, axes=(0, 1), reshape=False, order=1)
        cover = ndimage.rotate(np.ones(image.shape[:2]), degrees, axes=(0, 1), reshape=False, order=1)
        inside = cover > 0.999
        assert inside.mean() > 0.7
        assert np.abs(turned - wanted)[inside].max() < 2  # OpenCV may round positions to 1/32 pixel
        assert turned[0, 0].max() == 0


def test_rotation_has_its_probability_and_range():
    image = np.zeros((81, 81, 3), np.uint8)
    image[39:42, 69:72] = 255  # 30 pixels right of the centre
    rotation, rng = Rotation(0.3, [-20, 50]), np.random.default_rng(1)
    before = image.copy()
    angles = []
    for _ in range(2000):
        turned = rotation(image, rng)
        if turned is not image:
            y, x = ndimage.center_of_mass(turned[..., 0])
            angles.append(np.degrees(np.arctan2(40 - y, x - 40)))
    assert abs(len(angles) / 2000 - 0.3) < 0.04  # four standard deviations
    assert -20.5 < min(angles) < -18
    assert 48 < max(angles) < 50.5
    assert abs(np.mean(angles) - 15) < 4 * 70 / np.sqrt(12 * len(angles))
    assert np.array_equal(image, before)
