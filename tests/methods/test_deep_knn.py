"""Deep features and their nearest neighbours, against the formula written out."""

import numpy as np
import torch
from scipy.spatial.distance import cdist

from anomaly_lab.estimators.knn import KNearest
from anomaly_lab.methods.deep_knn import DeepKnn
from tests.support.features import NOTHING
from tests.support.fitting import TEST, TRAIN, backbone, fitted


def test_deep_knn_is_the_mean_squared_distance_of_standardised_vectors():
    method = fitted(DeepKnn(backbone("max"), NOTHING, KNearest(3, "squared")))
    extract = backbone("max")
    train, test = (torch.cat(extract(images), dim=1).double().numpy() for images in (TRAIN, TEST))
    train, test = ((vectors - train.mean(0)) / train.std(0) for vectors in (train, test))
    wanted = np.sort(cdist(test, train) ** 2)[:, :3].mean(1)
    np.testing.assert_allclose(method(TEST).score, wanted, rtol=1e-4)
    np.testing.assert_allclose(method.embed(TEST), test, rtol=1e-3, atol=1e-3)
    assert method.localises is False
