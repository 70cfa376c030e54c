"""PaDiM and PatchCore beside anomalib's, whole processes in turn: seconds, memory, and both sides' maps by our metrics.

    python -m tests.bench.bench_memory [DIR CATEGORY] [--weights FILE] [--methods padim patchcore] [--keep FOLDER]

Both get the same images (MVTec AD's layout; without DIR the demo's nut), the same tf_efficientnet_lite0 with the same
weights (without FILE the same random ones, which say nothing of accuracy), strides 8 and 16, the same 100 channels for
PaDiM, 256 px, float32 and two threads; each takes its own default batch size. A process is measured from its start to
its end: fit, test and metrics (the peer's image and pixel AUROC and AUPRO; ours has AP, F1 and intervals, too, keeps
its maps and fills its cache, which is empty at first). The peer's validation pass on the test set, normalisation and
pictures are switched off, and our pictures, too.
Needs the extra: pip install -e .[peers]
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

# The kernel counts into a child's peak what its parent held when it started it: no torch up here.
import numpy as np

BACKBONE, LAYERS, SIZE, BATCH, FEATURES = "tf_efficientnet_lite0", ("blocks.2", "blocks.4"), 256, 32, 100
CORESET, NEIGHBORS, THREADS, FPR_LIMIT = 0.01, 9, "2", 0.3
METHODS = ("padim", "patchcore")


class Task(NamedTuple):
    """What a process works on."""

    method: str
    root: Path
    category: str
    weights: Path
    out: Path  # the peer's .npz, our folder of runs


class Cost(NamedTuple):
    """What a process took."""

    seconds: float
    cpu_seconds: float
    peak_mib: float  # of the memory that was resident at once


def main() -> None:
    """Measure; or, where this file started itself, be the peer or make what is missing."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("data", nargs="*", metavar="DIR CATEGORY")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--peer", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--draw", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if len(given.data) not in {0, 2}:
        parser.error("give DIR and CATEGORY, or neither for the demo")
    if given.keep and given.keep.exists():
        parser.error("--keep: give a folder that is not there yet; a finished run would be skipped")
    if given.peer:
        method, root, category, weights, out = given.peer
        peer(Task(method, Path(root), category, Path(weights), Path(out)))
    elif given.draw:
        draw(*given.draw)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            compare(given, given.keep or Path(temporary))


def compare(given: argparse.Namespace, folder: Path) -> None:
    """Run each method on both sides and print."""
    folder.mkdir(parents=True, exist_ok=True)
    if not given.data or not given.weights:
        subprocess.run(
            [sys.executable, "-m", __spec__.name, "--draw", folder / "demo", folder / "w.safetensors"], check=True
        )
    root, category = given.data or (folder / "demo", "nut")
    weights = given.weights or folder / "w.safetensors"
    for method in given.methods:
        task = Task(method, Path(root), category, weights.resolve(), folder / f"peer_{method}.npz")
        their_cost, theirs = measured(peer_command(task)), numbers(task, *read_peer(task))
        task = task._replace(out=folder / f"our_{method}")
        our_cost, ours = measured(our_command(task)), numbers(task, *read_ours(task))
        print(f"\n{method} on {category}:      anomaly_lab    anomalib   ratio")
        for name, one, other in zip(Cost._fields, our_cost, their_cost, strict=True):
            print(f"  {name:20s} {one:12.1f} {other:12.1f} {other / one:7.2f}")
        for name, value in ours.items():
            print(f"  {name:20s} {value:12.4f} {theirs[name]:12.4f}")


def measured(command: list[str]) -> Cost:
    """Run a process to its end."""
    offline = {"OMP_NUM_THREADS": THREADS, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    began = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ | offline)
    _, status, used = os.wait4(process, 0)
    seconds = time.perf_counter() - began
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    return Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def peer_command(task: Task) -> list[str]:
    """Return what runs the peer."""
    return [sys.executable, "-m", __spec__.name, "--peer", *map(str, task)]


def our_command(task: Task) -> list[str]:
    """Return what runs ours, as a user would."""
    data = ["data=mvtec", f"data.root='{task.root}'", f"data.category={task.category}", "data.holdout=0"]
    same = [f"data.image_size={SIZE}", f"model.backbone.weights='{task.weights}'"]
    kept = [
        f"runs='{task.out}'",
        f"cache.folder='{task.out}/cache'",
        "evaluation.overlays=0",
        "evaluation.save_maps=true",
    ]
    same += [f"model.channels={FEATURES}"] if task.method == "padim" else []
    return [sys.executable, "-m", "anomaly_lab", f"model={task.method}_small", *data, *same, *kept]


def read_peer(task: Task) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Return the (N,) image files, the (N,) float32 scores and (N, H, W) float32 maps, as `peer` left them."""
    with np.load(task.out) as found:
        return [Path(path) for path in found["path"]], found["score"], found["map"]


def read_ours(task: Task) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Return the same of a run directory."""
    path = next(task.out.glob("*/*/*/*/manifest.json")).parent
    with (path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    with np.load(path / "maps" / "maps.npz") as maps:
        drawn = np.stack([maps[f"{row:05d}"] for row in range(len(table))])
    return [Path(row["path"]) for row in table], np.array([row["score"] for row in table], np.float32), drawn


def numbers(task: Task, files: list[Path], scores: np.ndarray, maps: np.ndarray) -> dict[str, float]:
    """Return the metrics of one side, in a process of their own: this one has to stay small."""
    folder = task.out.parent
    np.savez(folder / "scored.npz", path=[str(file.resolve()) for file in files], score=scores, map=maps)
    code = "import sys; from tests.bench.bench_memory import score; score(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(task.root / task.category), str(folder / "scored.npz")]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name: float(value) for name, value in (line.split() for line in said.splitlines())}


def score(category: str, file: str) -> None:
    """Print image and pixel metrics, with the masks at the size of the maps."""
    from anomaly_lab.data.images import Geometry, read_mask, resize_mask
    from anomaly_lab.data.tree import mvtec_tree
    from anomaly_lab.metrics.curves import ExactCurves

    records = {str(record.image.resolve()): record for record in mvtec_tree(Path(category), "test")}
    images, pixels = ExactCurves(), ExactCurves()
    with np.load(file) as found:
        paths, scores, maps = found["path"], found["score"], found["map"]
    assert sorted(paths) == sorted(records), "both sides score every test image once"
    images.update(scores, np.array([records[path].label for path in paths]))
    for path, anomaly_map in zip(paths, maps, strict=True):
        mask = np.zeros(anomaly_map.shape, bool)
        if (drawn := records[path].mask) is not None:
            size = image_size(drawn)
            placement = Geometry(mask.shape, "stretch", None, None).place(size)
            mask = resize_mask(read_mask(drawn, size), placement, mask.shape)
        pixels.update_map(anomaly_map, mask)
    for name, value in (images.summary("image", FPR_LIMIT) | pixels.summary("pixel", FPR_LIMIT)).items():
        print(name, value)


def image_size(file: Path) -> tuple[int, int]:
    """Return (H, W) of an image file."""
    from PIL import Image

    with Image.open(file) as image:
        return image.height, image.width


def draw(root: Path, weights: Path) -> None:
    """Write the demo's nut, and random weights for the backbone."""
    import timm
    import torch
    from safetensors.torch import save_file

    from anomaly_lab.data.demo_parts import write_demo

    write_demo(root, "nut")
    torch.manual_seed(0)
    save_file(timm.create_model(BACKBONE, pretrained=False).state_dict(), weights)


def peer(task: Task) -> None:
    """Fit and test anomalib's method through its Engine; keep path, raw score and raw map of every test image."""
    import torch
    from anomalib.data import MVTecAD
    from anomalib.engine import Engine
    from anomalib.metrics import AUPRO, AUROC, Evaluator
    from anomalib.models import Padim, Patchcore
    from anomalib.pre_processing import PreProcessor
    from lightning import Callback
    from safetensors.torch import load_file
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    class Keep(Callback):
        def __init__(self) -> None:
            self.path, self.score, self.map = [], [], []

        def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
            self.path += batch.image_path
            self.score.append(outputs.pred_score.flatten())
            self.map.append(outputs.anomaly_map.reshape(-1, SIZE, SIZE))

    torch.set_num_threads(int(THREADS))
    torch.manual_seed(0)
    normalise = Normalize([0.5] * 3, [0.5] * 3)  # what these weights were trained with
    image, pixel = ["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]
    metrics = [AUROC(image, prefix="image_"), AUROC(pixel, prefix="pixel_"), AUPRO(pixel)]
    bare = {"post_processor": False, "evaluator": Evaluator(test_metrics=metrics), "visualizer": False}
    bare["pre_processor"] = PreProcessor(Compose([Resize((SIZE, SIZE), antialias=True), normalise]))
    network = {"backbone": BACKBONE, "layers": list(LAYERS), "pre_trained": False}
    if task.method == "padim":
        model = Padim(**network, n_features=FEATURES, **bare)
        drawn = torch.randperm(152, generator=torch.Generator().manual_seed(0))  # ours for seed 0
        model.model.idx = drawn[:FEATURES]
    else:
        model = Patchcore(**network, coreset_sampling_ratio=CORESET, num_neighbors=NEIGHBORS, **bare)
    wanted = model.model.feature_extractor.feature_extractor
    print("not loaded:", wanted.load_state_dict(load_file(task.weights), strict=False), flush=True)
    data = MVTecAD(task.root, task.category, BATCH, BATCH, num_workers=0, val_split_mode="none")
    with tempfile.TemporaryDirectory() as results:
        quiet = {"limit_val_batches": 0, "enable_progress_bar": False, "default_root_dir": results}
        engine = Engine([kept := Keep()], accelerator="cpu", devices=1, **quiet)
        engine.fit(model, datamodule=data)
        engine.test(model, datamodule=data)
    maps = torch.cat(kept.map).numpy()
    np.savez(task.out, path=kept.path, score=torch.cat(kept.score).numpy(), map=maps)


if __name__ == "__main__":
    main()
