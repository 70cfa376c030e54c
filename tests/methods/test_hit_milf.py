"""HIT-MiLF's detector: standardisation, reduction and density against scikit-learn."""

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture as Reference

from anomaly_lab.estimators.gmm import GaussianMixture
from anomaly_lab.estimators.reduce import Pca
from anomaly_lab.methods.hit_milf import HitMilf
from tests.support.features import NOTHING
from tests.support.fitting import TEST, TRAIN, backbone, fitted


def test_hit_milf_is_the_density_of_reduced_features():
    mixture = GaussianMixture(1, "full", 1e-3, 1, 10, 1e-4, 0)
    method = fitted(HitMilf(backbone("avg"), NOTHING, Pca("largest", 0.9, 5), mixture))
    extract = backbone("avg")
    train, test = (torch.cat(extract(images), dim=1).double().numpy() for images in (TRAIN, TEST))
    train, test = ((vectors - train.mean(0)) / train.std(0) for vectors in (train, test))
    reduction = PCA(0.9).fit(train)
    count = min(5, reduction.n_components_)
    low = reduction.transform(train)[:, :count]
    reference = Reference(1, reg_covar=1e-3).fit(low)
    wanted = -reference.score_samples(reduction.transform(test)[:, :count])
    np.testing.assert_allclose(method(TEST).score, wanted, rtol=1e-3)
    assert method.embed(TEST).shape == (4, count)
