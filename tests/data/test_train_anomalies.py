"""Labelled anomalies for supervised methods: which leave the test set, how they are drawn and batched."""

from collections import Counter
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch

from anomaly_lab.config.building import instantiate
from anomaly_lab.data.augment.hierarchical import HierarchicalTransformation
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.splits import labelled
from anomaly_lab.errors import ConfigError
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.training.plan import planned
from anomaly_lab.types import ImageRecord, Prediction
from tests.data.sets.test_public_trees import kolektor, kolektor2
from tests.support.data_modules import mvtec, ready
from tests.support.runs import composed
from tests.support.training import told
from tests.support.trees import kolektor_tree, mvtec_tree

GOOD = [ImageRecord(Path(f"good/{index}"), None, label=False, defect="good") for index in range(4)]
BAD = [
    ImageRecord(Path(f"{kind}/{index}"), None, label=True, defect=kind)
    for kind, count in {"crack": 7, "dent": 3, "spot": 1}.items()
    for index in range(count)
]


@pytest.mark.parametrize("seed", range(4))
def test_each_kind_of_defect_gives_in_turn_and_more_hold_fewer(seed):
    drawn = [labelled((), GOOD + BAD, count, seed) for count in range(11)]
    for count, (taken, test) in enumerate(drawn):
        assert len(taken) == count
        assert not set(taken) & set(test)
        assert [record for record in GOOD + BAD if record in set(taken) | set(test)] == GOOD + BAD
        assert test == [record for record in GOOD + BAD if record in set(test)]
        assert set(taken) >= set(drawn[max(0, count - 1)][0])
    kinds = [Counter(record.defect for record in taken) for taken, _ in drawn]
    assert set(kinds[3].values()) == {1}
    assert kinds[5] == {"crack": 2, "dent": 2, "spot": 1}
    assert kinds[10] == {"crack": 6, "dent": 3, "spot": 1}


def test_another_seed_draws_others():
    assert len({tuple(labelled((), GOOD + BAD, 3, seed)[0]) for seed in range(8)}) > 4


@pytest.mark.parametrize(
    ("wanted", "said"), [(11, "11; of 11 .* 0 to 10"), (-1, "-1; of 11"), ("all", "up to 10")]
)
def test_a_test_set_keeps_an_anomaly_and_a_number_that_cannot_be_is_one_line(wanted, said):
    with pytest.raises(ConfigError, match=rf"^data\.train_anomalies: .*{said}"):
        labelled((), GOOD + BAD, wanted, 0)


def test_published_ones_are_taken_and_the_test_set_stays_whole(tmp_path):
    tree = kolektor_tree(tmp_path)
    whole = kolektor2(tree).roles
    data = kolektor2(tree, train_anomalies="all")
    published = data.roles["anomalies"]
    assert published
    assert {record.image.parent.name for record in published} == {"train"}
    assert all(record.label and record.mask for record in published)
    assert (data.roles["test"], data.roles["train"]) == (whole["test"], whole["train"])
    assert whole["anomalies"] == []
    assert kolektor2(tree, train_anomalies=1).roles["anomalies"][0] in published
    with pytest.raises(ConfigError, match="no defects are published"):
        _ = kolektor(tree, train_anomalies="all").roles


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> AnomalyDataModule:
    tree = mvtec_tree(tmp_path_factory.mktemp("data"), train=5, bad=4)
    return ready(mvtec(tree, train_anomalies=2))


def test_an_epoch_has_each_normal_image_and_each_anomaly_once_with_label_and_mask(data):
    batches = list(data.train_dataloader())
    label, image, clean, mask = (
        torch.cat([getattr(batch, name) for batch in batches]) for name in ("label", "image", "clean", "mask")
    )
    assert (len(label), int(label.sum()), label.dtype) == (7, 2, torch.bool)
    assert torch.equal(image, clean)
    assert torch.equal(mask.any(dim=2).any(dim=1), label)
    found = {tuple(one.flatten().tolist()) for one in image[label]}
    wanted = data.anomalies.images.transpose(0, 3, 1, 2).reshape(2, -1)
    assert found == {tuple(one.tolist()) for one in wanted}
    for one, marked in zip(image[label], mask[label], strict=True):
        assert torch.equal(marked, one.amin(dim=0) > 180)  # the tree's defects are brighter than all else


def test_the_manifest_the_fingerprint_and_the_plan_know_of_them(data):
    counts = data.described()["counts"]
    assert (counts["anomalies"], counts["test"], counts["train"]) == (2, 5, 5)
    assert sum(line.startswith("anomalies True") for line in data.files) == 4  # images and masks
    assert data.fingerprint != mvtec(Path(data.root)).fingerprint
    assert planned(instantiate(composed("trainer=cpu").trainer), data).anomalies == 2
    assert np.array_equal(data.normals.images(), data.train.images)


TURNED = HierarchicalTransformation(1, 1, ["photometry"], flip=False)


def test_augmentation_would_tell_normal_images_apart_and_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^data\.augment: goes with data\.train_anomalies=0 alone"):
        mvtec(
            tmp_path, train_anomalies=1, augment=HierarchicalTransformation(1, 1, ["photometry"], flip=False)
        )


@final
class Supervised(AnomalyMethod):
    supervised = True

    def forward(self, image):
        return Prediction(image.mean(1), image.mean((1, 2, 3)))

    def training_step(self, batch, batch_idx):
        return None


@final
class Unsupervised(AnomalyMethod):
    def forward(self, image):
        return Prediction(image.mean(1), image.mean((1, 2, 3)))

    def training_step(self, batch, batch_idx):
        return None


def test_only_a_supervised_method_gets_anomalies_and_it_must():
    told(Supervised(), anomalies=1)
    told(Unsupervised(), anomalies=0)
    with pytest.raises(ConfigError, match=r"^data\.train_anomalies: Unsupervised learns from normal images"):
        told(Unsupervised(), anomalies=1)
    with pytest.raises(ConfigError, match=r"^data\.train_anomalies: Supervised is supervised; give how many"):
        told(Supervised(), anomalies=0)
