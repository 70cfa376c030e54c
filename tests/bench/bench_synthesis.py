"""Speed of PerlinTexture beside anomalib's PerlinAnomalyGenerator, alternately in one run.

    OMP_NUM_THREADS=2 python -m tests.bench.bench_synthesis [FOLDER OF TEXTURES]

Both make a defect in every image, from the same 256 x 256 images and the same decoded textures in memory, and end at a
float32 tensor in [0, 1]; first with one thread, then with two. Ours counts only the images in which the noise left a
defect, because anomalib draws until there is one. Where other programs run, two threads of torch may be far slower than
one: judge by the better of the peer's two figures. Needs the extra: pip install -e .[peers]
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from anomaly_lab.data.datasets import as_tensor
from anomaly_lab.synthesis.procedural import make_textures
from anomaly_lab.synthesis.textures import TextureFolder

SIZE, ROUNDS, SECONDS = (256, 256), 5, 2.0
CONF = Path(__file__).parents[2] / "conf" / "synthesis" / "perlin_texture.yaml"


def main(folder: str) -> None:
    try:
        from anomalib.data.utils.generators import perlin as peer
    except ImportError as error:
        sys.exit(f"{error}; for this comparison: pip install -e .[peers]")
    images = make_textures(64, SIZE, np.random.default_rng(1))
    tensors = [as_tensor(image).float() / 255 for image in images]
    ours = instantiate(OmegaConf.load(CONF), probability=1.0, textures=folder, _convert_="all")
    ours.setup(images)
    theirs = peer.PerlinAnomalyGenerator(anomaly_source_path=folder, probability=1.0, blend_factor=(0.2, 1.0))
    bank = TextureFolder(folder, memory_gb=1.0).load(SIZE)
    decoded = {str(file): as_tensor(bank[index]) for index, file in enumerate(bank.files)}
    peer.io = SimpleNamespace(read_image=lambda path, **_: decoded[path], ImageReadMode=peer.io.ImageReadMode)
    rng = np.random.default_rng(0)

    def our_turn(index: int) -> bool:
        image, mask = ours(images[index % 64], rng)
        torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255))
        return bool(mask.any())

    def their_turn(index: int) -> bool:
        return bool(theirs(tensors[index % 64])[1].any())

    for threads in (1, 2):
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        print(f"{threads} thread(s), {ROUNDS} rounds and their medians; wanted is a ratio of images/s of 4 or more:")
        rounds = np.array([(*rates(our_turn), *rates(their_turn)) for _ in range(ROUNDS)])
        for a, our_work, b, their_work in (*rounds, np.median(rounds, 0)):
            print(f"  anomaly_lab {a:6.1f} images/s, anomalib {b:6.1f}, ratio {a / b:5.1f};", end=" ")
            print(f"of processor time {our_work:6.1f} and {their_work:6.1f}, ratio {our_work / their_work:5.1f}")


def rates(turn: Callable[[int], bool]) -> tuple[float, float]:
    """Return how many images with a defect are made per second, and per second of processor time of all threads.

    The second is the steadier one where other programs compete for the processor.
    """
    turn(0)
    wall, work, made, turns = time.perf_counter(), time.process_time(), 0, 0
    while time.perf_counter() - wall < SECONDS:
        made, turns = made + turn(turns), turns + 1
    return made / (time.perf_counter() - wall), made / (time.process_time() - work)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        if not sys.argv[1:]:
            for number, texture in enumerate(make_textures(130, SIZE, np.random.default_rng(0))):
                cv2.imwrite(f"{temporary}/{number:03}.png", texture[..., ::-1])
        main(sys.argv[1] if sys.argv[1:] else temporary)
