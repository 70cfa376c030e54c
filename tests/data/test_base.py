"""The data layer against what its addresses say: default_rng((purpose, seed, epoch, position))."""

import errno
import os
import shutil
from pathlib import Path

import cv2
import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_lab.data import decoding
from anomaly_lab.data.augment.base import Augmentation
from anomaly_lab.data.augment.rotation import Rotation
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.errors import ConfigError, DataError
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.types import EvalBatch, TrainBatch
from tests.support.data_modules import SIZE, mvtec, read, ready
from tests.support.trees import mvtec_tree, normal_image, write_png


class Square(Synthesizer):
    """Noise in a square of 8 pixels."""

    def __call__(self, image, rng):
        top, left = rng.integers(0, np.array(image.shape[:2]) - 8)
        mask = np.zeros(image.shape[:2], bool)
        mask[top : top + 8, left : left + 8] = True
        changed = image.copy()
        changed[mask] = rng.integers(0, 256, (64, 3))
        return changed, mask


class Twice(Augmentation):
    """Two darker copies of each image."""

    copies = 2

    def __call__(self, image, rng):
        return image // 2


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


# An epoch


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
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=2, default_root_dir=tmp_path, enable_model_summary=False, **quiet
    )
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
    plain, other = (
        epochs(ready(mvtec(tree, **RANDOM)), 2),
        epochs(ready(mvtec(tree, **RANDOM, workers=workers)), 2),
    )
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
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.test_dataloader()]
    assert [len(batch.row) for batch in batches] == [4, 2]
    assert all(isinstance(batch, EvalBatch) for batch in batches)
    whole = EvalBatch(*(torch.cat(values) for values in zip(*batches, strict=True)))
    assert whole.row.dtype == torch.int64
    assert whole.row.tolist() == list(range(6))
    assert [record.label for record in data.test.records] == [False] * 3 + [True] * 3
    assert whole.image.dtype == torch.float32
    files = [tree / f"part/test/{defect}/{i:03}.png" for defect in ("good", "scratch") for i in range(3)]
    assert [record.image for record in data.test.records] == files
    assert np.array_equal(as_images(whole.image), np.stack([read(file) for file in files]))
    masks = [read(tree / f"part/ground_truth/scratch/{i:03}_mask.png") > 0 for i in range(3)]
    assert data.test.masks.dtype == bool
    assert np.array_equal(data.test.masks, np.stack([np.zeros(SIZE, bool)] * 3 + masks))


@pytest.mark.parametrize(("holdout", "count"), [(0.0, 16), (0.25, 5)])
def test_the_kept_normals_centre_the_histograms_else_a_few_of_training(tmp_path, holdout, count):
    data = ready(mvtec(mvtec_tree(tmp_path, train=20), holdout=holdout))
    images = data.centring_images()
    records = data.normal.records or data.train.records[:16]
    assert not any(record.label for record in records)
    assert np.array_equal(images, np.stack([read(record.image) for record in records]))
    assert len(images) == count


def test_the_normals_are_the_training_images_as_they_are_at_each_iteration(tree):
    data = ready(mvtec(tree, **RANDOM))
    stored = np.stack([read(file) for file in sorted(tree.glob("part/train/good/*"))])
    for _ in range(2):
        batches = list(data.normals)
        assert [len(batch) for batch in batches] == [4, 1]
        images = torch.cat(batches)
        assert images.dtype == torch.float32
        assert torch.equal(images, torch.from_numpy(stored).permute(0, 3, 1, 2) / 255)


@pytest.mark.parametrize(("changes", "batches"), [({}, 2), ({"batch_size": 5}, 1), ({"augment": Twice()}, 4)])
def test_an_epoch_has_as_many_batches_as_it_says(tree, changes, batches):
    data = mvtec(tree, **changes)
    assert data.batches_per_epoch == batches  # also before anything is decoded
    assert len(epochs(ready(data))[0]) == batches


def test_nothing_that_is_done_to_a_batch_reaches_the_store(tree):
    data = ready(mvtec(tree, augment=Rotation(0.0, [0, 0])))  # hands the stored image itself on
    before = [split.images.copy() for split in (data.train, data.test)] + [data.test.masks.copy()]
    for batch in data.normals:
        batch.fill_(1)
    for loader in (data.train_dataloader(), data.test_dataloader()):
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
        roles = mvtec(root, holdout=0.25, seed=seed).roles
        assert (len(roles["train"]), len(roles["normal"]), len(roles["test"])) == (15, 5, 6)
        assert set(roles["train"]) | set(roles["normal"]) == whole
        kept.append(roles["normal"])
    assert kept[0] == kept[1] != kept[2]
    assert mvtec(root).roles["normal"] == []


def test_a_validation_folder_comes_before_the_holdout(tmp_path):
    roles = mvtec(mvtec_tree(tmp_path, train=6, validation=2), holdout=0.5).roles
    assert [len(records) for records in roles.values()] == [6, 2, 6, 0]
    assert {record.image.parent.parent.name for record in roles["normal"]} == {"validation"}


@pytest.mark.parametrize("holdout", [-0.1, 1.0])
def test_a_holdout_that_is_no_share(tree, holdout):
    with pytest.raises(ConfigError, match=r"data\.holdout"):
        mvtec(tree, holdout=holdout)


def test_the_fingerprint_is_of_the_content(tree, tmp_path):
    first = mvtec(tree).fingerprint
    root = shutil.copytree(tree, tmp_path / "elsewhere")
    for path in root.rglob("*.png"):
        os.utime(path, (0, 0))
    assert mvtec(root).fingerprint == first
    assert mvtec(root, holdout=0.4).fingerprint != first  # other roles
    for name in ("train/good/001.png", "test/good/001.png", "ground_truth/scratch/001_mask.png"):
        path = root / "part" / name
        old = path.read_bytes()
        array = read(path)
        array.flat[0] = 255 - array.flat[0]
        Image.fromarray(array).save(path)
        assert mvtec(root).fingerprint != first
        path.write_bytes(old)
    (root / "part/validation/good").mkdir(parents=True, exist_ok=True)
    # the same files in the same order
    shutil.move(root / "part/train/good/004.png", root / "part/validation/good")
    assert mvtec(root).fingerprint != first


def test_beyond_the_memory_the_images_lie_in_a_file(tree):
    inside, outside = ready(mvtec(tree)), ready(mvtec(tree, memory_gb=0.0, workers=1))
    assert isinstance(outside.train.images, np.memmap)
    assert not isinstance(inside.train.images, np.memmap)
    for a, b in ((inside.train, outside.train), (inside.test, outside.test)):
        assert np.array_equal(a.images, b.images)
        assert np.array_equal(a.masks, b.masks)
    assert torch.equal(epochs(inside)[0][1].image, epochs(outside)[0][1].image)


def test_a_full_disk_for_the_images_is_one_line(tree, tmp_path, monkeypatch):
    """The file has its room before the first image is written: behind a map there is no error to catch."""
    decoding.LAST.clear()
    file = tmp_path / "images"
    monkeypatch.setattr(decoding.tempfile, "TemporaryFile", lambda: file.open("w+b"))
    images = ready(mvtec(tree, memory_gb=0.0)).test.images
    assert file.stat().st_blocks * 512 >= images.nbytes > 0

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    decoding.LAST.clear()
    monkeypatch.setattr(os, "posix_fallocate", full)
    said = r"no room for .* GB of decoded images \(No space left on device\); set TMPDIR to a folder"
    with pytest.raises(DataError, match=said):
        ready(mvtec(tree, memory_gb=0.0))


# From the photograph to the network's image


def test_crops_and_padding_take_the_mask_along(tree):
    image, mask = (
        read(tree / "part/test/scratch/001.png"),
        read(tree / "part/ground_truth/scratch/001_mask.png") > 0,
    )
    padding = ((4, 4), (0, 0))
    for changes, cut in (
        ({"center_crop": 24}, lambda array: array[8:32, 12:36]),
        ({"crop": [0.0, 0.5, 1.0, 0.5], "image_size": [40, 24]}, lambda array: array[:, 24:]),
        (
            {"fit": "pad", "image_size": 48},
            lambda array: np.pad(array, padding + ((0, 0),) * (array.ndim - 2)),
        ),
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


def twelve_bits(root: Path, brightest: int) -> Path:
    """Make the images of `mvtec_tree` those of a camera of 12 bits, whose brightest test value is given."""
    for file in sorted(root.glob("part/t*/*/*.png")):
        values = read(file)[..., 0].astype(np.uint16) * 16
        values[0, 0] = brightest if file.parent.name == "scratch" else 3000
        Image.fromarray(values).save(file)
    return root


def test_sixteen_bit_files_have_one_white_from_the_training_images(tmp_path):
    data = ready(mvtec(twelve_bits(mvtec_tree(tmp_path), 9000), holdout=0.5))
    assert data.described()["white"] == 4095
    for split in (data.train, data.normal, data.test):
        for record, image in zip(split.records, split.images, strict=True):
            exact = np.minimum(read(record.image) * 255.0 / 4095, 255)
            assert np.abs(image - exact[..., None]).max() <= 0.5
    found, clipped = data.notes
    assert found == "data.white: 4095 is white in files of more than 8 bits, found on the training images"
    assert clipped.startswith(
        "data.white: 4095 is white; 3 of 6 images have brighter values, which are clipped"
    )
    whole = ready(mvtec(tmp_path, white=65535))
    assert whole.described()["white"] == 65535
    assert whole.notes == []
    assert np.array_equal(whole.test.images[0][..., 1], np.rint(read(whole.test.records[0].image) / 257.0))


@pytest.mark.parametrize("white", [0, 65536, -1])
def test_a_white_that_no_file_has(tree, white):
    with pytest.raises(ConfigError, match=rf"data\.white: {white}; give auto or a value from 1 to 65535"):
        mvtec(tree, white=white)


def test_masks_that_hardly_can_be_right_are_counted(tmp_path):
    root = mvtec_tree(tmp_path)
    first, second, _ = sorted(root.glob("part/ground_truth/scratch/*"))
    write_png(first, np.zeros(SIZE, bool))
    write_png(second, ~read(second))
    (note,) = ready(mvtec(root)).notes
    assert note.startswith("1 of 3 masks of defective images mark nothing, 1 more than half of the image, ")
    assert str(first) in note
