"""What was decoded serves the same content only; the copies of an augmentation stand beside the image."""

import inspect
import shutil

import numpy as np
import pytest
from PIL import Image

from anomaly_lab.data.augment.hierarchical import HierarchicalTransformation
from anomaly_lab.data.batches import AddressedSampler, TrainDataset
from anomaly_lab.data.sets.mvtec import MVTec
from anomaly_lab.synthesis.none import NoSynthesis
from tests.support.data_modules import mvtec, ready
from tests.support.trees import mvtec_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=10, good=4, bad=4, size=(64, 64))


def test_what_was_decoded_is_used_for_the_same_content_only(tree, tmp_path):
    copy = shutil.copytree(tree, tmp_path / "copy")
    first, other_size = ready(mvtec(tree)), ready(mvtec(tree, image_size=32))
    assert other_size.train.images.shape[1] == 32
    image = copy / "part/train/good/003.png"
    Image.fromarray(255 - np.array(Image.open(image))).save(image)
    changed = ready(mvtec(copy))
    assert not np.array_equal(changed.train.images[3], first.train.images[3])
    np.testing.assert_array_equal(changed.train.images[4], first.train.images[4])
    assert changed.train.records[0].image.is_relative_to(copy)
    elsewhere = ready(mvtec(shutil.copytree(copy, tmp_path / "again")))
    assert elsewhere.train.images is changed.train.images
    assert elsewhere.test.records[0].image.is_relative_to(tmp_path / "again")


def test_copies_come_beside_the_untouched_image():
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    augment = HierarchicalTransformation(2, 3, ["photometry"], flip=False)
    dataset = TrainDataset(images, augment, NoSynthesis(), 0)
    draws = list(AddressedSampler(16, 0, "shuffle"))
    assert sorted(draw.row for draw in draws) == list(range(16))
    seen = {draw.row: dataset[draw].clean.permute(1, 2, 0).numpy() for draw in draws}
    for row in range(4):
        np.testing.assert_array_equal(seen[row], images[row])
        copies = [seen[row + 4 * copy] for copy in (1, 2, 3)]
        assert all(not np.array_equal(copy, images[row]) for copy in copies)
        assert not np.array_equal(copies[0], copies[1])


def test_no_argument_of_a_data_set_has_a_default():
    """A field named like a method of the metaclass would silently take that as its default."""
    assert all(p.default is p.empty for p in inspect.signature(MVTec).parameters.values())
