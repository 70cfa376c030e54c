"""Speed of PerlinTexture beside anomalib's PerlinAnomalyGenerator, alternately in one run.

    OMP_NUM_THREADS=2 python -m tests.bench.bench_synthesis [FOLDER OF TEXTURES]

Both make a defect in every image, from the same 256 x 256 images and the same decoded textures in memory, with two
threads; both end at a float32 tensor in [0, 1]. Ours counts only the images in which the noise left a defect, because
anomalib draws until there is one. Needs the extra: pip install -e .[peers]
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

SIZE, THREADS, ROUNDS, SECONDS = (256, 256), 2, 5, 2.0
CONF = Path(__file__).parents[2] / "conf" / "synthesis" / "perlin_texture.yaml"


def main(folder: str) -> None:
    try:
        from anomalib.data.utils.generators import perlin as peer
    except ImportError as error:
        sys.exit(f"{error}; for this comparison: pip install -e .[peers]")
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(THREADS)
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
        as_tensor(image).float().div_(255)
        return bool(mask.any())

    def their_turn(index: int) -> bool:
        return bool(theirs(tensors[index % 64])[1].any())

    speeds = np.array([[rate(our_turn), rate(their_turn)] for _ in range(ROUNDS)])
    for (a, b), name in zip(speeds, range(ROUNDS), strict=True):
        print(f"round {name}: anomaly_lab {a:7.1f} images/s, anomalib {b:7.1f} images/s, ratio {a / b:5.1f}")
    a, b = np.median(speeds, 0)
    print(f"median:  anomaly_lab {a:7.1f} images/s, anomalib {b:7.1f} images/s, ratio {a / b:5.1f} (wanted: 4 or more)")


def rate(turn: Callable[[int], bool]) -> float:
    """Return how many images with a defect one turn after the other makes per second."""
    turn(0)
    start, made, turns = time.perf_counter(), 0, 0
    while time.perf_counter() - start < SECONDS:
        made, turns = made + turn(turns), turns + 1
    return made / (time.perf_counter() - start)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        if not sys.argv[1:]:
            for number, texture in enumerate(make_textures(130, SIZE, np.random.default_rng(0))):
                cv2.imwrite(f"{temporary}/{number:03}.png", texture[..., ::-1])
        main(sys.argv[1] if sys.argv[1:] else temporary)
