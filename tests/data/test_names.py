"""What names of files and folders may be, against what the file system and UTF-8 say themselves."""

import csv
import os
import shutil
from pathlib import Path

import pytest

from anomaly_lab.data.names import is_plain, printable, shortened
from anomaly_lab.errors import ConfigError, DataError
from anomaly_lab.verbs.check import examine
from tests.support.data_modules import SIZE, listed, mvtec, parts
from tests.support.runs import on_tree, ran
from tests.support.trees import folder_tree, mvtec_tree, normal_image, write_png

ODD = {"Ger\udce4t": r"Ger\xe4t", "a\nb": r"a\nb", "a\x1bb": r"a\x1bb", "a\u2028b": r"a\u2028b"}
WELL = ["a b", "ä", "日本", "a\u202fb", "🔩", "a,b", "[a]", "{a}", "a'b", 'a"b', "a=b", "%s"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_told_from_others_and_printed_in_one_line(name):
    assert not is_plain(name)
    shown = printable(name)
    assert shown == ODD[name]
    assert shown.encode().decode().splitlines() == [shown]


@pytest.mark.parametrize("name", WELL)
def test_other_names_are_printed_as_they_are(name):
    assert is_plain(name)
    assert printable(name) == name


@pytest.mark.parametrize("text", ["x" * 300, "検" * 100, "a" + "検" * 100, "🔩" * 80, "ä"])
def test_a_text_is_cut_by_bytes_between_two_signs(text):
    short = shortened(text, 100)
    assert text.startswith(short)
    assert len(short.encode()) <= 100
    assert short == text or len((short + text[len(short)]).encode()) > 100


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("place", ["train/good/{}.png", "test/scratch/{}.png", "test/{}/0.png"])
def test_an_odd_name_is_refused_by_one_line_before_anything_is_read(tmp_path, name, place):
    root = mvtec_tree(tmp_path)
    file = root / "part" / place.format(name)
    write_png(file, normal_image(SIZE, 9))
    with pytest.raises(DataError) as caught:
        listed(mvtec(root))
    said = f"{root}/part/{place.format(ODD[name])}: a name has control signs or is no UTF-8; "
    assert str(caught.value) == f"{said}rename the file or folder"
    problems = [finding.text for finding in examine(mvtec(root))[1] if finding.level == "problem"]
    assert str(caught.value) in problems


@pytest.mark.parametrize("name", ODD)
def test_a_root_with_an_odd_name_is_refused_as_well(tmp_path, name):
    root = folder_tree(tmp_path / name)
    with pytest.raises(DataError, match="is no UTF-8; rename"):
        listed(parts(root))


def test_names_of_all_other_kinds_come_out_as_they_are(tmp_path):
    root = folder_tree(tmp_path / "data")
    for index, name in enumerate(WELL):
        write_png(root / f"good/{name}.png", normal_image(SIZE, 70 + index))
    where = ["data=folder", f"data.root='{root}'", "data.normal_test=[good]", "data.normal_train=[train]"]
    shutil.copytree(root / "good", root / "train")
    for index, file in enumerate(sorted((root / "train").iterdir())):
        write_png(file, normal_image(SIZE, 200 + index))
    how = ["model=nearest", "data.image_size=16", "evaluation.bootstrap=0", "evaluation.overlays=4"]
    _, run = ran(tmp_path, *how, *where, "data.abnormal=[bad_dent]")
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        paths = {Path(row["path"]) for row in csv.DictReader(file)}
    assert paths == {*(root / "good").iterdir(), *(root / "bad_dent").iterdir()}


def test_the_longest_names_get_their_pictures(tmp_path):
    root = mvtec_tree(tmp_path / "data")
    top = root / "part"
    defect, stem = "划" * 80, "検" * 80  # 240 bytes each; a file system takes 255
    (top / "test/scratch").rename(top / "test" / defect)
    (top / "ground_truth/scratch").rename(top / "ground_truth" / defect)
    (top / f"test/{defect}/000.png").rename(top / f"test/{defect}/{stem}.png")
    (top / f"ground_truth/{defect}/000_mask.png").rename(top / f"ground_truth/{defect}/{stem}_mask.png")
    how = ["model=nearest", "data.image_size=16", "evaluation.bootstrap=0", "evaluation.overlays=6"]
    _, run = ran(tmp_path, *how, *on_tree(root))
    drawn = sorted(path.name for path in (run / "maps").iterdir())
    assert len(drawn) == 4
    assert max(len(os.fsencode(name)) for name in drawn) < 150


# Categories


@pytest.mark.parametrize(
    ("category", "advised"),
    [
        ("/data/ring", "ring"),
        ("ring/", "ring"),
        ("../data/ring", "ring"),
        ("a/b", "b"),
        ("..", "NAME"),
        (".", "NAME"),
        ("", "NAME"),
        (".git", "git"),
    ],
)
@pytest.mark.parametrize("made", [mvtec, parts])
def test_a_category_is_the_plain_name_of_a_folder(made, category, advised):
    with pytest.raises(ConfigError) as caught:
        made(Path("x"), category=category)
    line = f"data.category: {category!r} is no plain name of a folder; give data.category={advised}, "
    assert str(caught.value) == f"{line}and the folder that holds it as data.root"


@pytest.mark.parametrize("size", [7, 0, [7, 64], [64, 7], [64], [64, 64, 64]])
def test_an_image_too_small_to_show_anything_is_refused(size):
    with pytest.raises(
        ConfigError, match=r"data\.image_size: .*; give one side or \[height, width\], at least 8"
    ):
        mvtec(Path("x"), image_size=size)
    mvtec(Path("x"), image_size=8)
