"""One-class data: what is trained on and tested, where it is written, and what is said of bad files."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from anomaly_lab.data.sets.one_class.drawn import Coil100, Digits
from anomaly_lab.data.sets.one_class.published import Cifar10, FashionMnist, Mnist
from anomaly_lab.errors import ConfigError, DataError
from tests.support.data_modules import COMMON, read, ready
from tests.support.one_class import cifar_files, coil_tree, drawn, mnist_files

DRAW = {"test_share": 0.25, "split_seed": 0}


def made(kind: Any, root: Path, category: str, **changes: Any) -> Any:
    written = {} if kind in (Coil100, Digits) else {"written": str(root.parent / "written")}
    own = DRAW if kind in (Coil100, Digits) else written
    return kind(**{**COMMON, "image_size": 28, "root": str(root), "category": category, **own, **changes})


@pytest.mark.parametrize(("kind", "names"), [(Mnist, "digit_{}"), (FashionMnist, None)])
@pytest.mark.parametrize("ending", [".gz", ""])
def test_the_test_set_is_the_published_one_and_training_the_normal_class(tmp_path, kind, names, ending):
    root = mnist_files(tmp_path / "root", ending=ending)
    name = kind.classes()[7]
    data = ready(made(kind, root, name))
    for part, records, split in (
        ("train", data.roles["train"], data.train),
        ("test", data.roles["test"], data.test),
    ):
        images, classes = drawn(30 if part == "train" else 20, (28, 28), 1 if part == "train" else 2)
        wanted = [images[classes == 7]]
        if part == "test":
            wanted += [images[classes == number] for number in range(10) if number != 7]
            assert [r.label for r in records] == [False] * 2 + [True] * 18
            assert {r.defect for r in records if r.label} == set(kind.classes()) - {name}
        np.testing.assert_array_equal(split.images[..., 0], np.concatenate(wanted))
        assert {r.defect for r in records if not r.label} == {"good"}
        assert not any(r.mask for r in records)
    assert kind.categories("nowhere") == kind.classes()
    assert names is None or name == names.format(7)


@pytest.mark.parametrize("form", ["bin", "py"])
def test_both_versions_of_cifar_give_the_same_photographs(tmp_path, form):
    data = made(Cifar10, cifar_files(tmp_path / "root", form), "cat", image_size=32)
    ready(data)
    batches = [drawn(10, (32, 32, 3), seed) for seed in range(5)]
    images, classes = (np.concatenate(values) for values in zip(*batches, strict=True))
    np.testing.assert_array_equal(data.train.images, images[classes == 3])
    shown, truth = drawn(20, (32, 32, 3), 5)
    np.testing.assert_array_equal(data.test.images[:2], shown[truth == 3])
    assert len(data.roles["test"]) == 20
    assert [data.roles["test"][place].defect for place in (0, 2, 19)] == ["good", "airplane", "truck"]


def test_what_is_wanted_is_written_once_and_other_files_lie_elsewhere(tmp_path):
    root = mnist_files(tmp_path / "root")
    first = made(Mnist, root, "digit_3")
    assert len(first.records("train")) == 3
    (top,) = (tmp_path / "written/mnist").iterdir()  # nothing of the test yet
    assert [folder.name for folder in top.iterdir()] == ["digit_3"]
    before = {file: file.stat().st_mtime_ns for file in top.rglob("*.png")}
    shutil.rmtree(root)
    mnist_files(root)  # the same content
    assert made(Mnist, root, "digit_3").records("train") == first.records("train")
    assert {file: file.stat().st_mtime_ns for file in top.rglob("*.png")} == before
    mnist_files(root, train=40)
    more = made(Mnist, root, "digit_3").records("train")
    assert len(more) == 4
    assert not {r.image for r in more} & before.keys()


def test_a_writing_that_is_broken_off_leaves_nothing_that_counts(tmp_path, monkeypatch):
    root, write = mnist_files(tmp_path / "root"), Path.write_bytes
    left = iter(range(2))

    def breaking(self, content):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", breaking)
    with pytest.raises(KeyboardInterrupt):
        made(Mnist, root, "digit_3").records("train")
    assert not list((tmp_path / "written").rglob("*.png"))
    monkeypatch.undo()
    assert len(made(Mnist, root, "digit_3").records("train")) == 3


def test_what_is_missing_or_wrong_is_one_line(tmp_path):
    root = mnist_files(tmp_path / "root")
    (root / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        DataError, match=r"root: has no file t10k-labels-idx1-ubyte\.gz or t10k-labels.*data\.root"
    ):
        made(Mnist, root, "digit_3").records("test")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        made(Mnist, tmp_path / "nowhere", "digit_3").records("train")
    with pytest.raises(DataError, match="has no folder cifar-10-batches-bin or cifar-10-batches-py; unpack"):
        made(Cifar10, root, "cat").records("train")
    with pytest.raises(DataError, match=r"root: has no images obj1__0\.png"):
        made(Coil100, root, "obj1").records("train")
    with pytest.raises(DataError, match=r"cannot be written \(.*\); give data\.written=FOLDER"):
        made(Mnist, root, "digit_3", written=str(root / "train-images-idx3-ubyte.gz")).records("train")
    labels = root / "train-labels-idx1-ubyte.gz"
    shutil.copy(root / "train-images-idx3-ubyte.gz", labels)
    with pytest.raises(DataError, match="does not fit train-images"):
        made(Mnist, root, "digit_3").records("train")


def test_a_class_that_there_is_not_is_said(tmp_path):
    cifar_files(tmp_path / "root", "bin")
    file = tmp_path / "root/cifar-10-batches-bin/data_batch_2.bin"
    file.write_bytes(b"\x0b" + file.read_bytes()[1:])
    with pytest.raises(DataError, match=r"data_batch_5\.bin: a class is none of 0 to 9"):
        made(Cifar10, tmp_path / "root", "cat").records("train")


# Data sets without a published split


def test_a_share_of_each_object_is_drawn_and_no_run_seed_changes_it(tmp_path):
    root = coil_tree(tmp_path / "root", objects=12)
    assert Coil100.categories(str(root)) == [f"obj{number}" for number in range(1, 13)]
    data = made(Coil100, root, "obj2")
    train, test = data.records("train"), data.records("test")
    assert len(train) == 6
    assert [r.label for r in test] == [False] * 2 + [True] * 22  # a quarter of 8 views of each
    assert {r.image.stem.split("__")[0] for r in train} == {"obj2"}
    assert not {r.image for r in train} & {r.image for r in test}
    assert {r.defect for r in test if r.label} == {f"obj{n}" for n in range(1, 13) if n != 2}
    assert made(Coil100, root / "coil-100", "obj2", seed=99).records("test") == test
    assert made(Coil100, root, "obj2", split_seed=1).records("train") != train
    # Whichever is normal, the test set is the same.
    others = made(Coil100, root, "obj7").records("test")
    assert {r.image for r in others} == {r.image for r in test}
    with pytest.raises(DataError, match=r"root: has no obj13; there are obj1, obj2"):
        made(Coil100, root, "obj13").records("train")
    with pytest.raises(ConfigError, match=r"data\.test_share: 1\.0; give a share"):
        made(Coil100, root, "obj2", test_share=1.0).records("train")


def test_the_digits_are_those_of_scikit_learn(tmp_path):
    data = made(Digits, tmp_path / "digits", "digit_4", test_share=0.5, image_size=8)
    train, test = data.records("train"), data.records("test")
    shipped = load_digits()
    count = (shipped.target == 4).sum()
    assert len(train) == count - round(0.5 * count)
    assert len(test) == sum(round(0.5 * (shipped.target == digit).sum()) for digit in range(10))
    for record in (*train[:5], *test[::100]):
        place = int(record.image.stem)
        assert record.image.parent.name == f"digit_{shipped.target[place]}"
        assert record.label == (shipped.target[place] != 4)
        np.testing.assert_allclose(read(record.image), shipped.images[place] * 255 / 16, atol=0.5)
