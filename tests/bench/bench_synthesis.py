"""Speed of PerlinTexture beside anomalib's PerlinAnomalyGenerator, alternately in one run.

    OMP_NUM_THREADS=2 python -m tests.bench.bench_synthesis [--tiny] [FOLDER OF TEXTURES]

Both make a defect in every image, from the same 256 x 256 images and the same decoded textures in memory,
and end at a float32 tensor in [0, 1]; first with one thread, then with two. Ours counts only the images in
which the noise left a defect, because anomalib draws until there is one. Where other programs run, two
threads of torch may be far slower than one: judge by the better of the peer's two figures. Needs the extra:
pip install -e .[peers]; --tiny: ours alone.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from omegaconf import OmegaConf

from anomaly_lab.config.building import instantiate
from anomaly_lab.data.batches import as_tensor
from anomaly_lab.synthesis.procedural import make_textures
from anomaly_lab.synthesis.textures import TextureFolder

CONF = Path(__file__).parents[2] / "conf" / "synthesis" / "perlin_texture.yaml"


class Size(NamedTuple):
    """How much is measured."""

    image: tuple[int, int]
    textures: int  # made if no folder is given
    rounds: int
    seconds: float  # of a turn


FULL, TINY = Size((256, 256), 130, 5, 2.0), Size((48, 48), 13, 1, 0.05)
Turn = Callable[[int], bool]


def main(arguments: Sequence[str]) -> None:
    """Print images a second of both sides; with --tiny, of ours."""
    size = TINY if "--tiny" in arguments else FULL
    given = [word for word in arguments if word != "--tiny"]
    with tempfile.TemporaryDirectory() as temporary:
        if not given:
            textures = make_textures(size.textures, size.image, 0)
            for number, texture in enumerate(textures):
                cv2.imwrite(f"{temporary}/{number:03}.png", texture[..., ::-1])
        compare(size, given[0] if given else temporary)


def compare(size: Size, folder: str) -> None:
    """Measure in turn, with one thread and with two."""
    images = make_textures(64, size.image, 1)
    ours = our_turn(images, folder)
    turns = (
        {"anomaly_lab": ours}
        if size is TINY
        else {"anomaly_lab": ours, "anomalib": their_turn(images, folder)}
    )
    for threads in (1, 2):
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        wanted = "wanted is a ratio of images/s of 4 or more"
        print(f"{threads} thread(s), {size.rounds} rounds and their medians; {wanted}:")
        rounds = np.array(
            [[rates(turn, size.seconds) for turn in turns.values()] for _ in range(size.rounds)]
        )
        for row in (*rounds, np.median(rounds, 0)):
            for unit, speeds in zip(("images/s", "a second of processor time"), row.T, strict=True):
                said = ", ".join(f"{name} {speed:6.1f}" for name, speed in zip(turns, speeds, strict=True))
                ratio = "no peer" if size is TINY else f"ratio {speeds[0] / speeds[1]:5.1f}"
                print(f"  {said} {unit}, {ratio};", end="")
            print()


def our_turn(images: np.ndarray, folder: str) -> Turn:
    """Return what makes one image of ours, and says whether it has a defect."""
    ours = instantiate(
        OmegaConf.load(CONF), probability=1.0, textures=folder, resize="opencv", _convert_="all"
    )
    ours.setup(images)
    rng = np.random.default_rng(0)

    def turn(index: int) -> bool:
        image, mask = ours(images[index % len(images)], rng)
        torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255))
        return bool(mask.any())

    return turn


def their_turn(images: np.ndarray, folder: str) -> Turn:
    """Return the same of the peer."""
    try:
        from anomalib.data.utils.generators import perlin as peer
    except ImportError as error:
        sys.exit(f"{error}; for this comparison: pip install -e .[peers]")
    tensors = [as_tensor(image).float() / 255 for image in images]
    theirs = peer.PerlinAnomalyGenerator(anomaly_source_path=folder, probability=1.0, blend_factor=(0.2, 1.0))
    bank = TextureFolder(folder, memory_gb=1.0, resize="antialias").load(images.shape[1:3])
    decoded = {str(file): as_tensor(bank[index]) for index, file in enumerate(bank.files)}
    peer.io = SimpleNamespace(read_image=lambda path, **_: decoded[path], ImageReadMode=peer.io.ImageReadMode)
    return lambda index: bool(theirs(tensors[index % len(tensors)])[1].any())


def rates(turn: Turn, seconds: float) -> tuple[float, float]:
    """Return how many images with a defect are made a second, and a second of all threads' processor time.

    The second is the steadier one where other programs compete for the processor.
    """
    turn(0)
    wall, work, made, turns = time.perf_counter(), time.process_time(), 0, 0
    while time.perf_counter() - wall < seconds:
        made, turns = made + turn(turns), turns + 1
    return made / (time.perf_counter() - wall), made / (time.process_time() - work)


if __name__ == "__main__":
    main(sys.argv[1:])
