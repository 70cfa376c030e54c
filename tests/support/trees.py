"""Small data sets: every image a noisy grey part, every defect a bright square, all by the arguments."""

from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = ("train", "validation", "good", "bad")


def write_png(path: Path, array: np.ndarray) -> Path:
    """Write (H, W) or (H, W, 3) uint8, or an (H, W) bool mask as 0/255; make the folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array).save(path)
    return path


def normal_image(size: tuple[int, int], *address: int) -> np.ndarray:
    """Return a (H, W, 3) uint8 gradient of 60 to 120, noise of +-8; another address gives another image."""
    noise = np.random.default_rng(address).integers(-8, 9, (*size, 3))
    return (np.linspace(60, 120, size[1])[None, :, None] + noise).astype(np.uint8)


def defective_image(size: tuple[int, int], *address: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a normal image with a square of 240 to 255, a fifth of the shorter side, and its bool mask."""
    rng = np.random.default_rng((*address, 1))
    side = max(1, min(size) // 5)
    top, left = (int(rng.integers(0, length - side + 1)) for length in size)
    mask = np.zeros(size, bool)
    mask[top : top + side, left : left + side] = True
    image = normal_image(size, *address)
    image[mask] = rng.integers(240, 256, (side * side, 3))
    return image, mask


def _normals(folder: Path, count: int, size: tuple[int, int], split: str) -> None:
    for index in range(count):
        write_png(folder / f"{index:03}.png", normal_image(size, SPLITS.index(split), index))


def mvtec_tree(
    root: Path,
    category: str = "part",
    train: int = 6,
    good: int = 3,
    bad: int = 3,
    size: tuple[int, int] = (40, 48),
    validation: int = 0,
) -> Path:
    """Write ``root/category`` as MVTec AD lays it out, with one defect, ``scratch``; return ``root``."""
    folder = root / category
    _normals(folder / "train/good", train, size, "train")
    _normals(folder / "validation/good", validation, size, "validation")
    _normals(folder / "test/good", good, size, "good")
    for index in range(bad):
        image, mask = defective_image(size, SPLITS.index("bad"), index)
        write_png(folder / f"test/scratch/{index:03}.png", image)
        write_png(folder / f"ground_truth/scratch/{index:03}_mask.png", mask)
    return root


def folder_tree(root: Path, good: int = 9, bad: int = 3, size: tuple[int, int] = (40, 48)) -> Path:
    """Write ``root/good``, ``root/bad_dent``, ``root/masks/bad_dent`` with equal stems; return ``root``."""
    _normals(root / "good", good, size, "train")
    for index in range(bad):
        image, mask = defective_image(size, SPLITS.index("bad"), index)
        write_png(root / f"bad_dent/{index:03}.png", image)
        write_png(root / f"masks/bad_dent/{index:03}.png", mask)
    return root


def magnetic_tile_tree(root: Path, tiles: int = 6, size: tuple[int, int] = (40, 48)) -> Path:
    """Write MT_Free, ``tiles`` of six exposures each, 1000 numbers apart, and two images of each defect."""
    for index in range(6 * tiles):
        stem = root / f"MT_Free/Imgs/exp{index % 6 + 1}_num_{1000 * (index // 6) + 12 * (index % 6)}"
        write_png(stem.with_suffix(".jpg"), normal_image(size, SPLITS.index("train"), index))
        write_png(stem.with_suffix(".png"), np.zeros(size, bool))
    for index in range(10):
        defect = ("Blowhole", "Break", "Crack", "Fray", "Uneven")[index // 2]
        stem = root / f"MT_{defect}/Imgs/exp{index % 2 + 1}_num_{90000 + index}"
        for array, suffix in zip(
            defective_image(size, SPLITS.index("bad"), index), (".jpg", ".png"), strict=True
        ):
            write_png(stem.with_suffix(suffix), array)
    return root


def kolektor_tree(root: Path, parts: int = 5, size: tuple[int, int] = (48, 40)) -> Path:
    """Write KolektorSDD, ``parts`` of four surfaces, the third defective, and KolektorSDD2, 8 + 4 so."""
    for index in range(max(12, 4 * parts)):
        image, mask = defective_image(size, SPLITS.index("bad"), index)
        if index % 4 != 2:
            image, mask = normal_image(size, SPLITS.index("good"), index), np.zeros(size, bool)
        if index < 4 * parts:
            write_png(root / f"KolektorSDD/kos{index // 4:02}/Part{index % 4}.jpg", image)
            write_png(root / f"KolektorSDD/kos{index // 4:02}/Part{index % 4}_label.bmp", mask)
        if index < 12:
            write_png(root / f"KolektorSDD2/{'train' if index < 8 else 'test'}/{10000 + index}.png", image)
            write_png(root / f"KolektorSDD2/{'train' if index < 8 else 'test'}/{10000 + index}_GT.png", mask)
    return root


def zipper_tree(root: Path, category: str = "zipper_1", size: tuple[int, int] = (40, 48)) -> Path:
    """Write ``root/category``: four images for training, three good and two defective ones for testing."""
    _normals(root / category / "train", 4, size, "train")
    _normals(root / category / "test/ok", 3, size, "good")
    for index in range(2):
        write_png(root / f"{category}/test/defective/{index:03}.png", defective_image(size, 3, index)[0])
    return root


def _defects(
    folder: Path, masks: Path, count: int, size: tuple[int, int], suffixes: tuple[str, str, str]
) -> None:
    """Write ``count`` defective images and their masks; the suffixes are of image, mask stem and mask."""
    for index in range(count):
        image, mask = defective_image(size, SPLITS.index("bad"), index)
        write_png(folder / f"{index:03}{suffixes[0]}", image)
        write_png(masks / f"{index:03}{suffixes[1]}{suffixes[2]}", mask)


def btad_tree(root: Path, category: str = "01", size: tuple[int, int] = (40, 48)) -> Path:
    """Write a product in its published formats, six images for training, three good, three defective ones."""
    image, mask = {"01": (".bmp", ".png"), "02": (".png", ".png"), "03": (".bmp", ".bmp")}[category]
    for split, count in (("train", 6), ("test", 3)):
        for index in range(count):
            picture = normal_image(size, SPLITS.index("train" if split == "train" else "good"), index)
            write_png(root / f"{category}/{split}/ok/{index:04}{image}", picture)
    _defects(root / category / "test/ko", root / category / "ground_truth/ko", 3, size, (image, "", mask))
    return root


def visa_tree(root: Path, category: str = "candle", size: tuple[int, int] = (40, 48)) -> Path:
    """Write six images for training, three good, three defective ones; a csv with another object, too."""
    rows = ["object,split,label,image,mask", "pcb4,train,normal,pcb4/Data/Images/Normal/0001.JPG,"]
    for index in (4, 8, 1, 0, 6, 2, 5, 7, 3):  # as published, in no order
        name = f"{category}/Data/Images/Normal/{index:04}.JPG"
        write_png(root / name, normal_image(size, SPLITS.index("train"), index))
        rows.append(f"{category},{'train' if index < 6 else 'test'},normal,{name},")
    for index in range(3):
        image, mask = defective_image(size, SPLITS.index("bad"), index)
        names = (
            f"{category}/Data/Images/Anomaly/{index:03}.JPG",
            f"{category}/Data/Masks/Anomaly/{index:03}.png",
        )
        write_png(root / names[0], image)
        kinds = np.where(np.arange(size[1]) % 2, index + 1, 9) * mask  # two kinds of defect, column by column
        write_png(root / names[1], kinds.astype(np.uint8))
        rows.append(f"{category},test,anomaly,{','.join(names)}")
    (root / "split_csv").mkdir(exist_ok=True)
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")
    return root


def loco_tree(root: Path, category: str = "pushpins", size: tuple[int, int] = (40, 48)) -> Path:
    """Write six, three and three good images; two logical anomalies of two masks, two structural of one."""
    folder = root / category
    for split, role, count in (("train", "train", 6), ("validation", "validation", 3), ("test", "good", 3)):
        _normals(folder / split / "good", count, size, role)
    for index in range(4):
        image, mask = defective_image(size, SPLITS.index("bad"), index)
        home = f"{'logical' if index < 2 else 'structural'}_anomalies/{index % 2:03}"
        write_png(folder / f"ground_truth/{home}/000.png", mask * np.uint8(255))
        if index < 2:
            other, more = defective_image(size, SPLITS.index("bad"), index, 7)
            image[more] = other[more]
            # a value is a kind of defect
            write_png(folder / f"ground_truth/{home}/001.png", more * np.uint8(236))
        write_png(folder / f"test/{home}.png", image)
    return root


def ad2_tree(root: Path, category: str = "can", size: tuple[int, int] = (40, 48)) -> Path:
    """Write six, three and three good images, three defective ones, and some of the two private test sets."""
    folder = root / category
    for split, role, count in (
        ("train", "train", 6),
        ("validation", "validation", 3),
        ("test_public", "good", 3),
    ):
        _normals(folder / split / "good", count, size, role)
    for split in ("test_private", "test_private_mixed"):
        _normals(folder / split, 2, size, "bad")
    masks = folder / "test_public/ground_truth/bad"
    _defects(folder / "test_public/bad", masks, 3, size, (".png", "_mask", ".png"))
    return root
