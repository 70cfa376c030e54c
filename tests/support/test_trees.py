"""The trees that other tests stand on are what they say."""

from pathlib import Path

from anomaly_lab.data.content import content_hash
from anomaly_lab.data.images import read_image, read_mask
from tests.support.trees import folder_tree, mvtec_tree


def test_the_trees_are_what_they_say(tmp_path):
    assert (
        mvtec_tree(tmp_path / "m", "bolt", train=4, good=2, bad=3, size=(30, 40), validation=1)
        == tmp_path / "m"
    )
    assert folder_tree(tmp_path / "f", good=4, bad=2) == tmp_path / "f"
    files = {str(path.relative_to(tmp_path)): path for path in sorted(tmp_path.rglob("*.png"))}
    counts = {
        "m/bolt/train/good": 4,
        "m/bolt/validation/good": 1,
        "m/bolt/test/good": 2,
        "m/bolt/test/scratch": 3,
    }
    counts |= {"m/bolt/ground_truth/scratch": 3, "f/good": 4, "f/bad_dent": 2, "f/masks/bad_dent": 2}
    assert {folder: sum(str(Path(name).parent) == folder for name in files) for folder in counts} == counts
    assert sum(counts.values()) == len(files)
    images = [path for name, path in files.items() if name.startswith("m/") and "ground_truth" not in name]
    assert len({content_hash(path) for path in images}) == len(images)
    image = read_image(files["m/bolt/test/scratch/002.png"])
    mask = read_mask(files["m/bolt/ground_truth/scratch/002_mask.png"], (30, 40))
    assert image.shape == (30, 40, 3)
    assert mask.sum() == 36
    assert image[mask].min() > 200 > image[~mask].max()
    again = mvtec_tree(tmp_path / "again", "bolt", train=4, good=2, bad=3, size=(30, 40), validation=1)
    assert content_hash(again / "bolt/test/good/001.png") == content_hash(files["m/bolt/test/good/001.png"])
