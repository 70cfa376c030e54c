"""The data layer against what its addresses say, written out: default_rng((purpose, seed, epoch, position))."""

import os
import shutil
from pathlib import Path

import cv2
import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from anomaly_lab.data.augment import Rotation
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.data.datasets import AddressedSampler
from anomaly_lab.data.gtanoic import GTanoIC
from anomaly_lab.errors import ConfigError, DataError
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.types import EvalBatch, TrainBatch
from tests.data_modules import COMMON, SIZE, mvtec, read, ready
from tests.trees import mvtec_tree, normal_image, write_png


class Square(Synthesizer):
    """Noise in a square of 8 pixels."""

    def __call__(self, image, rng):
        top, left = rng.integers(0, np.array(image.shape[:2]) - 8)
        mask = np.zeros(image.shape[:2], bool)
        mask[top : top + 8, left : left + 8] = True
        changed = image.copy()
        changed[mask] = rng.integers(0, 256, (64, 3))
        return changed, mask


TURN = Rotation(0.5, [-90, 90])
RANDOM = {"augment": TURN, "synthesis": Square()}


def epochs(data: AnomalyDataModule, count: int = 1) -> list[list[TrainBatch]]:
    loader = data.train_dataloader()
    found = []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        found.append([data.on_after_batch_transfer(batch, 0) for batch in loader])
    return found


def as_images(batch: torch.Tensor) -> np.ndarray:
    return (batch * 255).round().byte().permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Five training images, three good and three defective ones; only to be read."""
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=5)


# The order of an epoch


def test_shuffling_draws_each_row_once_and_another_order_each_epoch():
    sampler = AddressedSampler(50, 7, "shuffle")
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first == again
    assert sorted(draw.row for draw in first) == sorted(draw.row for draw in second) == list(range(50))
    assert [draw.row for draw in first] != [draw.row for draw in second]
    assert [draw.position for draw in second] == list(range(50)) == list(range(len(sampler)))
    assert {draw.epoch for draw in second} == {1}
    assert list(AddressedSampler(50, 8, "shuffle")) != first


def test_replacement_draws_independently():
    sampler = AddressedSampler(1000, 7, "replacement")
    rows = np.array([draw.row for draw in sampler])
    assert rows.min() >= 0
    assert rows.max() < 1000
    # 1000 independent draws meet 1000 (1 - 1/e) = 632 rows, with a standard deviation of 10.
    assert 592 < len(set(rows.tolist())) < 672


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|many workers)")
def test_a_run_goes_through_the_addressed_images(tree, tmp_path):
    """Lightning tells the sampler its epoch, and every image is what its address says, in any process."""
    seen = []

    class Watcher(L.LightningModule):
        def training_step(self, batch, batch_idx):
            seen.append(batch)

        def configure_optimizers(self):
            return []

    data = mvtec(tree, **RANDOM, sampling="replacement")
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=2, default_root_dir=tmp_path, enable_model_summary=False, **quiet)
    model = Watcher()
    model.automatic_optimization = False
    trainer.fit(model, data)
    store = np.stack([read(file) for file in sorted(tree.glob("part/train/good/*"))])
    expected = []
    for epoch in range(2):
        rows = np.random.default_rng((2, 3, epoch)).integers(5, size=5)
        for position, row in enumerate(rows):
            rng = np.random.default_rng((3, 3, epoch, position))
            clean = TURN(store[row], rng)
            expected.append((*Square()(clean, rng), clean))
    for value, field in zip(zip(*expected, strict=True), ("image", "mask", "clean"), strict=True):
        got = torch.cat([getattr(batch, field) for batch in seen])
        assert np.array_equal(as_images(got) if field != "mask" else got.numpy(), np.stack(value))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(tree, workers):
    plain, other = epochs(ready(mvtec(tree, **RANDOM)), 2), epochs(ready(mvtec(tree, **RANDOM, workers=workers)), 2)
    for mine, theirs in zip(plain, other, strict=True):
        for one, two in zip(mine, theirs, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(plain[0][0].image, plain[1][0].image)


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_draws_nothing_from_torch(tree, workers):
    data = ready(mvtec(tree, **RANDOM, workers=workers))
    state = torch.get_rng_state()
    epochs(data, 2)
    assert torch.equal(state, torch.get_rng_state())


# Batches


def test_a_training_batch(tree):
    batches = epochs(ready(mvtec(tree, **RANDOM)))[0]
    assert [len(batch.image) for batch in batches] == [4, 1]
    for batch in batches:
        assert isinstance(batch, TrainBatch)
        assert batch.image.shape == batch.clean.shape == (len(batch.image), 3, *SIZE)
        assert batch.mask.shape == (len(batch.image), *SIZE)
        assert batch.image.dtype == batch.clean.dtype == torch.float32
        assert batch.mask.dtype == torch.bool
        assert 0 <= batch.image.min() <= batch.clean.min()
        assert 0.5 < batch.image.max() <= 1
        assert batch.mask.flatten(1).sum(1).tolist() == [64] * len(batch.image)
        outside = ~batch.mask[:, None].expand_as(batch.image)
        assert torch.equal(batch.image[outside], batch.clean[outside])


def test_without_synthesis_the_image_is_clean(tree):
    for batch in epochs(ready(mvtec(tree, augment=TURN)))[0]:
        assert torch.equal(batch.image, batch.clean)
        assert not batch.mask.any()


def test_test_batches_keep_the_order_of_the_records(tree):
    data = ready(mvtec(tree))
    normals, test = data.test_dataloader()
    batches = [data.on_after_batch_transfer(batch, 1) for batch in test]
    assert [len(batch.row) for batch in batches] == [4, 2]
    whole = EvalBatch(*(torch.cat(values) for values in zip(*batches, strict=True)))
    assert whole.row.dtype == torch.int64
    assert whole.row.tolist() == list(range(6))
    assert whole.label.dtype == whole.mask.dtype == torch.bool
    assert whole.label.tolist() == [False] * 3 + [True] * 3
    assert whole.image.dtype == torch.float32
    files = [tree / f"part/test/{defect}/{i:03}.png" for defect in ("good", "scratch") for i in range(3)]
    assert [record.image for record in data.test.records] == files
    assert np.array_equal(as_images(whole.image), np.stack([read(file) for file in files]))
    masks = [read(tree / f"part/ground_truth/scratch/{i:03}_mask.png") > 0 for i in range(3)]
    assert np.array_equal(whole.mask.numpy(), np.stack([np.zeros(SIZE, bool)] * 3 + masks))
    assert [batch.label.any().item() for batch in normals] == [False, False]


@pytest.mark.parametrize(("holdout", "count"), [(0.0, 16), (0.25, 5)])
def test_the_first_test_loader_has_the_kept_normals_else_a_few_of_training(tmp_path, holdout, count):
    data = ready(mvtec(mvtec_tree(tmp_path, train=20), holdout=holdout))
    images = torch.cat([batch.image for batch in data.test_dataloader()[0]])
    records = data.normal.records or data.train.records[:16]
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), np.stack([read(record.image) for record in records]))
    assert len(images) == count


def test_nothing_that_is_done_to_a_batch_reaches_the_store(tree):
    data = ready(mvtec(tree, augment=Rotation(0.0, [0, 0])))  # hands the stored image itself on
    before = [split.images.copy() for split in (data.train, data.test)] + [data.test.masks.copy()]
    for loader in (data.train_dataloader(), *data.test_dataloader()):
        for batch in (*loader, *(loader.dataset[address] for address in loader.sampler)):
            for value in batch:
                value.fill_(1)
    for old, new in zip(before, (data.train.images, data.test.images, data.test.masks), strict=True):
        assert np.array_equal(old, new)


# What is kept of the training images, and what a data set is


def test_holdout(tmp_path):
    root = mvtec_tree(tmp_path, train=20)
    whole = set(mvtec(root).records("train"))
    kept = []
    for seed in (3, 3, 4):
        splits = mvtec(root, holdout=0.25, seed=seed).splits()
        assert (len(splits["train"]), len(splits["normal"]), len(splits["test"])) == (15, 5, 6)
        assert set(splits["train"]) | set(splits["normal"]) == whole
        kept.append(splits["normal"])
    assert kept[0] == kept[1] != kept[2]
    assert mvtec(root).splits()["normal"] == []


def test_a_validation_folder_comes_before_the_holdout(tmp_path):
    splits = mvtec(mvtec_tree(tmp_path, train=6, validation=2), holdout=0.5).splits()
    assert [len(records) for records in splits.values()] == [6, 2, 6]
    assert {record.image.parent.parent.name for record in splits["normal"]} == {"validation"}


@pytest.mark.parametrize("holdout", [-0.1, 1.0])
def test_a_holdout_that_is_no_share(tree, holdout):
    with pytest.raises(ConfigError, match=r"data\.holdout"):
        mvtec(tree, holdout=holdout)


def test_the_fingerprint_is_of_the_content(tree, tmp_path):
    first = mvtec(tree).fingerprint()
    root = shutil.copytree(tree, tmp_path / "elsewhere")
    for path in root.rglob("*.png"):
        os.utime(path, (0, 0))
    assert mvtec(root).fingerprint() == first
    assert mvtec(root, holdout=0.4).fingerprint() != first  # other roles
    for name in ("train/good/001.png", "test/good/001.png", "ground_truth/scratch/001_mask.png"):
        path = root / "part" / name
        old = path.read_bytes()
        array = read(path)
        array.flat[0] = 255 - array.flat[0]
        Image.fromarray(array).save(path)
        assert mvtec(root).fingerprint() != first
        path.write_bytes(old)
    (root / "part/validation/good").mkdir(parents=True, exist_ok=True)
    shutil.move(root / "part/train/good/004.png", root / "part/validation/good")  # the same files in the same order
    assert mvtec(root).fingerprint() != first


def test_beyond_the_memory_the_images_lie_in_a_file(tree):
    inside, outside = ready(mvtec(tree)), ready(mvtec(tree, memory_gb=0.0, workers=1))
    assert isinstance(outside.train.images, np.memmap)
    assert not isinstance(inside.train.images, np.memmap)
    for a, b in ((inside.train, outside.train), (inside.test, outside.test)):
        assert np.array_equal(a.images, b.images)
        assert np.array_equal(a.masks, b.masks)
    assert torch.equal(epochs(inside)[0][1].image, epochs(outside)[0][1].image)


# From the photograph to the network's image


def test_crops_and_padding_take_the_mask_along(tree):
    image, mask = read(tree / "part/test/scratch/001.png"), read(tree / "part/ground_truth/scratch/001_mask.png") > 0
    padding = ((4, 4), (0, 0))
    for changes, cut in (
        ({"center_crop": 24}, lambda array: array[8:32, 12:36]),
        ({"crop": [0.0, 0.5, 1.0, 0.5], "image_size": [40, 24]}, lambda array: array[:, 24:]),
        ({"fit": "pad", "image_size": 48}, lambda array: np.pad(array, padding + ((0, 0),) * (array.ndim - 2))),
    ):
        test = ready(mvtec(tree, **changes)).test
        assert np.array_equal(test.images[4], cut(image))
        assert np.array_equal(test.masks[4], cut(mask))
        assert test.sizes[4] == SIZE


def test_mixed_files_become_rgb_of_eight_bits(tmp_path):
    root = mvtec_tree(tmp_path, train=1)
    wide = np.random.default_rng(0).integers(0, 65536, SIZE, dtype=np.uint16)
    assert cv2.imwrite(str(root / "part/train/good/001.png"), wide)
    grey = write_png(root / "part/train/good/002.png", normal_image(SIZE, 5)[..., 0])
    images = ready(mvtec(root)).train.images
    assert images.dtype == np.uint8
    assert np.array_equal(images[0], read(root / "part/train/good/000.png"))
    assert np.array_equal(images[1], np.repeat(np.rint(wide / 257.0)[..., None], 3, 2))
    assert np.array_equal(images[2], np.repeat(read(grey)[..., None], 3, 2))


def test_a_found_part_is_cropped_in_every_split(tmp_path):
    """GTanoIC: chips on a plain ground, which its recipe crops to the part."""
    rng = np.random.default_rng(0)
    mask = np.zeros((60, 80), bool)
    mask[12:42, 30:60] = True  # the part: 30 pixels a side
    for name in ("train/good/0", "train/good/1", "test/good/0", "test/crack/0"):
        image = np.where(mask[..., None], rng.integers(150, 250, (60, 80, 3)), rng.integers(8, 14, (60, 80, 3)))
        write_png(tmp_path / f"D_C/{name}.png", image.astype(np.uint8))
    write_png(tmp_path / "D_C/ground_truth/crack/0_mask.png", mask)
    data = GTanoIC(**{**COMMON, "root": str(tmp_path), "category": "D_C", "crop": "auto", "image_size": 32})
    assert data.geometry().crop is not None  # also before anything is decoded
    top, left, height, width = np.array(ready(data).crop_box) * (60, 80, 60, 80)
    assert 8 <= top <= 12
    assert 26 <= left <= 30
    assert 42 <= top + height <= 46
    assert 60 <= left + width <= 64
    assert data.test.images[:, 4:28, 4:28].min() > 100
    assert data.test.masks[1].mean() > 0.75
    with pytest.raises(DataError, match="D_A: no such folder; there are: D_C"):
        GTanoIC(**{**COMMON, "root": str(tmp_path), "category": "D_A"}).splits()


# Augmentation


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
