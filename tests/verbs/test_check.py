"""The check of a data set: each fault is put into a sound tree, and found; the sound tree passes."""

import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.errors import ConfigError
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.verbs import check, rules
from anomaly_lab.verbs.check import examine, listing, span, table, work
from anomaly_lab.verbs.rules import Finding, doubts
from tests.support.data_modules import SIZE, mvtec, parts, read
from tests.support.runs import asked, ran
from tests.support.trees import folder_tree, mvtec_tree, normal_image, write_png


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """Sixteen training images, three good and three defective ones; only to be read."""
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=16)


@pytest.fixture
def root(sound, tmp_path) -> Path:
    """A copy to be spoilt."""
    return shutil.copytree(sound, tmp_path / "data")


def found(data: AnomalyDataModule, level: str | None = None) -> list[Finding]:
    return [finding for finding in examine(data)[1] if level in (None, finding.level)]


def only(data: AnomalyDataModule, level: str, text: str) -> list[str]:
    """Return the files of the one finding, with their paths below the category."""
    (finding,) = found(data)
    assert finding.level == level
    assert text in finding.text
    return [file.replace(f"{data.root}/part/", "") for file in finding.files]


def copy(root: Path, source: str, target: str) -> None:
    (root / "part" / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "part" / source, root / "part" / target)


def test_a_sound_tree(sound):
    looks, findings = examine(mvtec(sound, holdout=0.25))
    assert findings == []
    assert list(listing(findings)) == ["\nNothing found that is wrong."]
    assert [line.split() for line in table(looks)] == [
        ["images", "masks", "height", "width", "files"],
        ["train", "good", "12", "0", "40", "48", "PNG", "RGB"],
        ["normal", "(kept", "for", "the", "threshold)", "good", "4", "0", "40", "48", "PNG", "RGB"],
        ["test", "good", "3", "0", "40", "48", "PNG", "RGB"],
        ["test", "scratch", "3", "3", "40", "48", "PNG", "RGB"],
    ]


def test_sound_folders(tmp_path):
    root = folder_tree(tmp_path, good=20)
    assert found(parts(root)) == []
    (root / "masks/bad_dent").rename(root / "flat")  # beside good, whose images are not their own masks
    assert found(parts(root, mask_folder="flat")) == []


# What stops a run or falsifies its numbers


def test_every_unreadable_file_is_listed(root):
    broken = [
        "train/good/003.png",
        "test/good/000.png",
        "test/scratch/001.png",
        "ground_truth/scratch/002_mask.png",
    ]
    for name in broken:
        content = (root / "part" / name).read_bytes()
        (root / "part" / name).write_bytes(content[: len(content) // 2])
    (root / "part/train/good/004.png").write_bytes(b"")
    findings = found(mvtec(root))
    assert {finding.level for finding in findings} == {"problem"}
    named = sorted(finding.text.partition(":")[0].replace(f"{root}/part/", "") for finding in findings)
    assert named == sorted([*broken, "train/good/004.png"])


@pytest.mark.parametrize(
    ("source", "target", "level", "text"),
    [
        (
            "train/good/005.png",
            "test/good/900.png",
            "problem",
            "in more than one of train, normal and test: 1",
        ),
        (
            "train/good/005.png",
            "validation/good/0.png",
            "problem",
            "in more than one of train, normal and test: 1",
        ),
        ("train/good/005.png", "train/good/900.png", "warning", "stand in train more than once: 1"),
        ("test/good/001.png", "test/good/900.png", "warning", "stand in test more than once: 1"),
        (
            "test/good/001.png",
            "test/dent/900.png",
            "problem",
            "among the good and among the defective ones: 1",
        ),
        (
            "train/good/001.png",
            "test/dent/900.png",
            "problem",
            "among the good and among the defective ones: 1",
        ),
    ],
)
def test_duplicates(root, source, target, level, text):
    copy(root, source, target)
    if "dent" in target:
        write_png(root / "part/ground_truth/dent/900.png", np.eye(*SIZE, dtype=bool))
    (pair,) = only(mvtec(root), level, text)
    assert set(pair.split(" = ")) == {source, target}


def test_equal_pixels_in_other_files_are_duplicates(root):
    Image.fromarray(read(root / "part/train/good/005.png")).save(root / "part/test/good/900.bmp")
    problems = found(mvtec(root), "problem")
    assert ["more than one of train" in problem.text for problem in problems] == [True]
    (mixed,) = found(mvtec(root), "warning")
    assert "(22 PNG RGB, 1 BMP RGB)" in mixed.text


def test_all_masks_that_fit_no_image_are_listed_and_the_rest_is_looked_at(root):
    mask = np.eye(*SIZE, dtype=bool)
    write_png(root / "part/ground_truth/scratch/000.png", mask)  # beside 000_mask.png
    write_png(root / "part/ground_truth/scratch/800_mask.png", mask)
    write_png(root / "part/test/dent/000.png", normal_image(SIZE, 7))
    write_png(root / "part/ground_truth/dent/801_mask.png", mask)
    copy(root, "train/good/005.png", "test/good/900.png")
    problems = [
        finding.text.replace(f"{root}/part/ground_truth/", "") for finding in found(mvtec(root), "problem")
    ]
    assert [text.partition(":")[0] for text in problems[:3]] == [
        "dent/801_mask.png",
        "scratch/000_mask.png",
        "scratch/800_mask.png",
    ]
    assert len(problems) == 4
    assert "more than one of train" in problems[3]


def test_a_mask_of_another_size(root):
    write_png(root / "part/ground_truth/scratch/001_mask.png", np.eye(20, dtype=bool))
    (finding,) = found(mvtec(root))
    assert finding.level == "problem"
    assert "001_mask.png" in finding.text
    assert "(20, 20)" in finding.text


def test_an_empty_mask(root):
    write_png(root / "part/ground_truth/scratch/001_mask.png", np.zeros(SIZE, bool))
    assert only(mvtec(root), "problem", "1 of 3 anomalous images have a mask in which no") == [
        "test/scratch/001.png"
    ]


def test_a_mask_that_marks_most_of_the_image(root):
    for name, share in (("000", 0.6), ("001", 1.0), ("002", 0.4)):
        mask = np.arange(np.prod(SIZE)).reshape(SIZE) < share * np.prod(SIZE)
        write_png(root / f"part/ground_truth/scratch/{name}_mask.png", mask)
    text = "2 of 3 anomalous images have a mask that marks more than half of the image; where black marks"
    assert only(mvtec(root), "warning", text) == ["test/scratch/000.png", "test/scratch/001.png"]


def test_sixteen_bit_files_that_do_not_use_their_range(root):
    for file in sorted(root.glob("part/t*/*/*.png")):
        Image.fromarray(read(file)[..., 0].astype(np.uint16) * 16).save(file)
    assert only(mvtec(root), "warning", "4095 is white in files of more than 8 bits") == []
    assert not found(mvtec(root, white=65535))
    Image.fromarray(np.full(SIZE, 5000, np.uint16)).save(root / "part/test/good/001.png")
    texts = {finding.text: finding.files for finding in found(mvtec(root))}
    assert len(texts) == 2
    (files,) = [
        files for text, files in texts.items() if text.startswith("1 of 22 images have values brighter")
    ]
    assert files == [str(root / "part/test/good/001.png")]


def test_a_mask_of_a_good_image(root):
    for name, mask in (
        ("000", np.zeros(SIZE, bool)),
        ("001", np.eye(*SIZE, dtype=bool)),
        ("777", np.ones(SIZE, bool)),
    ):
        write_png(root / f"part/ground_truth/good/{name}_mask.png", mask)
    files = only(mvtec(root), "problem", "1 good images have a mask with anomalous pixels")
    assert files == ["test/good/001.png = ground_truth/good/001_mask.png"]


@pytest.mark.parametrize(("masks", "level"), [("required", "problem"), ("auto", "warning")])
def test_missing_masks(root, masks, level):
    (root / "part/ground_truth/scratch/001_mask.png").unlink()
    assert only(mvtec(root, masks=masks), level, "1 of 3 anomalous images have no mask") == [
        "test/scratch/001.png"
    ]


def test_missing_folders_are_named_and_the_rest_is_looked_at(root):
    shutil.rmtree(root / "part/train")
    (root / "part/test/good/000.png").write_bytes(b"no image")
    texts = [finding.text for finding in found(mvtec(root), "problem")]
    assert len(texts) == 2
    assert "train: no such folder; there are: ground_truth, test" in texts[0]
    assert "000.png: no PNG" in texts[1]
    assert [finding.text for finding in found(mvtec(root / "nowhere"))] == [
        f"{root}/nowhere: no such folder; give data.root=FOLDER"
    ]


def test_no_part_to_crop_to_is_said_and_keeps_the_frame(root, capsys):
    for file in (root / "part/train/good").iterdir():
        write_png(file, np.random.default_rng(int(file.stem)).integers(100, 110, (*SIZE, 3)).astype(np.uint8))
    work(asked(*ARGUMENTS, f"data.root='{root}'", "data.crop=auto"))
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(
        "data.crop=auto: nothing is cropped, as nothing stands out from the background of"
    )


# What only weakens a result


def test_few_images_and_one_sided_tests(tmp_path):
    texts = [finding.text for finding in found(mvtec(mvtec_tree(tmp_path / "a", train=3, good=0)), "warning")]
    assert texts == [
        "only 3 images to train on",
        "no good images to test on: what needs both, like AUROC, cannot be measured",
    ]
    (text,) = [finding.text for finding in found(mvtec(mvtec_tree(tmp_path / "b", train=10, bad=0)))]
    assert text.startswith("no defective images to test on")


def test_images_that_are_enlarged_more_than_twice(root):
    (finding,) = [one for one in found(mvtec(root, image_size=128), "warning") if "enlarged" in one.text]
    assert finding.text.startswith("22 of 22 images are enlarged more than twice: data.image_size")
    assert not [one for one in found(mvtec(root, image_size=64), "warning") if "enlarged" in one.text]


def test_another_size_than_the_first_is_a_problem_where_images_are_registered(root):
    write_png(root / "part" / "test" / "good" / "000.png", normal_image((50, 41), 3))
    (finding,) = found(mvtec(root, register=True), "problem")
    assert finding.text.startswith("1 of 22 images have another size")
    assert [Path(file).name for file in finding.files] == ["000.png"]
    assert not found(mvtec(root), "problem")


@pytest.mark.parametrize(("fit", "count"), [("stretch", 2), ("pad", 1)])
def test_sizes_that_differ(root, fit, count):
    write_png(root / "part/train/good/900.png", normal_image((40, 100), 1))
    texts = [finding.text for finding in found(mvtec(root, fit=fit), "warning")]
    assert len(texts) == count
    assert "the longer side is 48 to 100 pixels" in texts[-1]
    if fit == "stretch":
        assert texts[0].startswith("width / height is 1.2 to 2.5: data.fit=stretch")


def test_depths_that_differ(root):
    wide = np.random.default_rng(0).integers(0, 65536, (*SIZE, 3), dtype=np.uint16)
    cv2.imwrite(str(root / "part/test/scratch/000.png"), wide)
    cv2.imwrite(str(root / "part/test/scratch/001.png"), wide[..., 0])
    (finding,) = found(mvtec(root))
    assert finding.level == "warning"
    assert "(20 PNG RGB, 1 PNG RGB 16 bit, 1 PNG I;16)" in finding.text
    assert "PNG RGB x 1" in "\n".join(table(examine(mvtec(root))[0]))


# What is printed


def test_layout():
    assert [span([7, 7]), span([9, 1, 5, 4])] == ["7", "1 / 4 / 9"]
    files = [f"{i}.png" for i in range(13)]
    lines = "\n".join(listing([Finding("problem", "x", files), Finding("warning", "y", files)])).splitlines()
    assert lines[:15] == ["", "PROBLEM: x", *(f"  {file}" for file in files)]
    assert lines[15:] == ["", "WARNING: y", *(f"  {file}" for file in files[:10]), "  and 3 more"]


ARGUMENTS = ("model=draem", "data=mvtec", "data.category=part", "data.image_size=32")


def test_the_command_without_problems(sound, capsys):
    work(asked(*ARGUMENTS, f"data.root='{sound}'", "synthesis.textures=no/such/folder"))
    assert capsys.readouterr().out.endswith("\nNothing found that is wrong.\n")


@pytest.fixture
def another_light(root) -> Path:
    """The good test images are 30 grey levels brighter than the training images."""
    for file in (root / "part/test/good").iterdir():
        write_png(file, read(file) + 30)
    return root


def test_what_any_run_would_find_doubtful_is_said_in_its_words(another_light, tmp_path, capsys):
    wanted = ["model=nearest", "data=mvtec", "data.category=part", f"data.root='{another_light}'"]
    wanted += ["data.image_size=[32,24]", "data.crop=[0.1,0,0.8,1]", "data.holdout=0.25"]
    wanted += ["evaluation.target_fpr=0.1"]
    _, path = ran(tmp_path, *wanted, "evaluation.overlays=0")
    found = RunDirectory(path).manifest()["doubts"]
    few, light = (line for line in found if "held-out images: about" in line or "grey levels" in line)
    assert few.startswith(
        "threshold from 4 held-out images: about 20 % of good parts will lie above it, not 10"
    )
    assert light.startswith("normal test images are 30 grey levels brighter than training images")
    work(asked(*wanted))
    assert capsys.readouterr().out.endswith(f"\nLook at this: {few}\n\nLook at this: {light}\n")
    work(asked(*wanted, "data.holdout=0"))  # no threshold is wanted
    assert capsys.readouterr().out.endswith(f"\n\nLook at this: {light}\n")
    work(asked(*wanted, "data.register=true"))  # which shows a run other parts of the images
    assert light not in capsys.readouterr().out


def test_no_light_is_compared_where_no_image_reaches_the_network(another_light):
    """With a training image that cannot be read there is no box of the part, and so no network's image."""
    (another_light / "part/train/good/000.png").write_bytes(b"no image")
    looks, problems = examine(mvtec(another_light, crop="auto"))
    assert [(problem.level, "000.png: no PNG" in problem.text) for problem in problems] == [("problem", True)]
    assert doubts(looks, 0.05, register=False) == []


DOORS = [["anomaly_lab", "check"], ["anomaly_lab.check"]]


@pytest.mark.parametrize("words", DOORS)
def test_the_command(words, door, root, tmp_path, monkeypatch):
    copy(root, "train/good/005.png", "test/good/900.png")
    monkeypatch.chdir(tmp_path)
    code, said, errors = door(words, *ARGUMENTS, f"data.root={root}")
    assert code == 1
    assert "  part/train/good/005.png = part/test/good/900.png\n" in said
    assert errors == f"anomaly_lab: error: {root}: mend the 1 problem above before a run\n"
    assert list(tmp_path.iterdir()) == [root]  # nothing is written


@pytest.mark.parametrize("words", DOORS)
def test_help(words, door):
    code, said, errors = door(words, "--help")
    assert code == 0
    assert all(word in said for word in ("python -m anomaly_lab check data=mvtec", "exit code 1"))
    assert errors == ""


def test_what_is_not_allowed_is_refused_before_any_image_is_read(root):
    with pytest.raises(ConfigError, match=r"give 'allow=\[elsewhere\]'"):
        work(asked(*ARGUMENTS, f"data.root='{root}/nowhere'", "data._target_=elsewhere.Data"))


def test_no_more_is_read_at_once_than_fits_the_memory(sound, monkeypatch):
    now, most = [], []

    def look(role, record, *how):
        now.append(record)
        most.append(len(now))
        time.sleep(0.001)
        now.remove(record)
        return rules.look(role, record, *how)

    monkeypatch.setattr(check, "look", look)
    examine(mvtec(sound, memory_gb=0.0))
    assert max(most) == 1  # one goes, however small the memory
