"""PaDiM and PatchCore beside anomalib's, whole processes in turn: seconds, memory, the maps by our metrics.

    python -m tests.bench.bench_memory [DIR CATEGORY] [--weights FILE] [--methods padim patchcore]
        [--keep FOLDER] [--tiny]

Both get the same images (MVTec AD's layout; without DIR the demo's nut), the same tf_efficientnet_lite0
with the same weights (without FILE the same random ones, which say nothing of accuracy), strides 8 and 16,
the same 100 channels for PaDiM, 256 px, float32 and two threads; each takes its own default batch size. A
process is measured from its start to its end: fit, test and metrics (the peer's image and pixel AUROC and
AUPRO; ours has AP, F1 and intervals, too, keeps its maps and fills its cache, which is empty at first). The
peer's validation pass on the test set, normalisation and pictures are switched off, and our pictures, too.
Needs the extra: pip install -e .[peers]; --tiny: ours alone, in this process, on a few small images.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# The kernel counts into a child's peak what its parent held when it started it: no torch up here.
import numpy as np

BACKBONE, LAYERS, BATCH, FEATURES = "tf_efficientnet_lite0", ("blocks.2", "blocks.4"), 32, 100
CORESET, NEIGHBORS, THREADS, FPR_LIMIT = 0.01, 9, "2", 0.3
METHODS = ("padim", "patchcore")


class Task(NamedTuple):
    """What a process works on."""

    method: str
    root: Path
    category: str
    weights: Path
    out: Path  # the peer's .npz, our folder of runs
    side: int  # of the images that the networks see


class Cost(NamedTuple):
    """What a process took."""

    seconds: float
    cpu_seconds: float
    peak_mib: float  # of the memory that was resident at once


def main(arguments: Sequence[str]) -> None:
    """Measure; or, where this file started itself, be the peer or make what is missing."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("data", nargs="*", metavar="DIR CATEGORY")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--peer", nargs=6, help=argparse.SUPPRESS)
    parser.add_argument("--draw", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if len(given.data) not in {0, 2}:
        parser.error("give DIR and CATEGORY, or neither for the demo")
    if given.keep and given.keep.exists():
        parser.error("--keep: give a folder that is not there yet; a finished run would be skipped")
    if given.peer:
        method, root, category, weights, out, side = given.peer
        peer(Task(method, Path(root), category, Path(weights), Path(out), int(side)))
    elif given.draw:
        draw(*given.draw)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folder = given.keep or Path(temporary)
            if given.tiny:
                ours_alone(folder)
            else:
                compare(given, folder)


def ours_alone(folder: Path) -> None:
    """Run each method of ours on a few small images in this process, and print."""
    import anomaly_lab
    from tests.support.trees import mvtec_tree

    root, weights = mvtec_tree(folder / "data", size=(64, 64)), folder / "w.safetensors"
    draw_weights(weights)
    for method in METHODS:
        task = Task(method, root, "part", weights, folder / f"our_{method}", 64)
        began = time.perf_counter()
        anomaly_lab.run(overrides(task))
        print(f"{method} on part:      anomaly_lab\n  {'seconds':20s} {time.perf_counter() - began:12.1f}")
        scored = save_scored(task, *read_ours(task))
        for name, value in metrics_of(str(root / "part"), str(scored)).items():
            print(f"  {name:20s} {value:12.4f}")


def compare(given: argparse.Namespace, folder: Path) -> None:
    """Run each method on both sides and print."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = given.weights or folder / "w.safetensors"
    if not given.data or not given.weights:
        drawing = [sys.executable, "-m", __spec__.name, "--draw", folder / "demo", folder / "w.safetensors"]
        subprocess.run(drawing, check=True)
    root, category = given.data or (folder / "demo", "nut")
    for method in given.methods:
        task = Task(method, Path(root), category, weights.resolve(), folder / f"peer_{method}.npz", 256)
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
    return [sys.executable, "-m", "anomaly_lab", *overrides(task)]


def overrides(task: Task) -> list[str]:
    """Return what a user would give."""
    data = ["data=mvtec", f"data.root='{task.root}'", f"data.category={task.category}", "data.holdout=0"]
    same = [f"data.image_size={task.side}", f"model.backbone.weights='{task.weights}'"]
    same += [f"model.channels={FEATURES}"] if task.method == "padim" else []
    kept = [f"runs='{task.out}'", f"cache.folder='{task.out}/cache'"]
    kept += ["evaluation.overlays=0", "evaluation.save_maps=true"]
    return [f"model={task.method}_small", *data, *same, *kept]


def read_peer(task: Task) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Return the (N,) image files, (N,) float32 scores and (N, H, W) float32 maps, as `peer` left them."""
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
    scored = save_scored(task, files, scores, maps)
    code = f"import sys; from {__spec__.name} import metrics_of; "
    code += "[print(*pair) for pair in metrics_of(*sys.argv[1:]).items()]"
    command = [sys.executable, "-c", code, str(task.root / task.category), str(scored)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name: float(value) for name, value in (line.split() for line in said.splitlines())}


def save_scored(task: Task, files: list[Path], scores: np.ndarray, maps: np.ndarray) -> Path:
    """Keep one side's maps where `metrics_of` reads them."""
    file = task.out.parent / "scored.npz"
    np.savez(file, path=[str(path.resolve()) for path in files], score=scores, map=maps)
    return file


def metrics_of(category: str, file: str) -> dict[str, float]:
    """Return image and pixel metrics, with the masks at the size of the maps."""
    from anomaly_lab.data.geometry import Geometry, resize_mask
    from anomaly_lab.data.images import read_mask
    from anomaly_lab.data.listing import mvtec_tree
    from anomaly_lab.evaluation.metrics import image_metrics, pixel_metrics

    records = {str(record.image.resolve()): record for record in mvtec_tree(Path(category), "test")}
    with np.load(file) as found:
        paths, scores, maps = found["path"], found["score"], found["map"]
    assert sorted(paths) == sorted(records), "both sides score every test image once"
    masks = []
    for path, anomaly_map in zip(paths, maps, strict=True):
        mask = np.zeros(anomaly_map.shape, bool)
        if (drawn := records[path].mask) is not None:
            size = image_size(drawn)
            placement = Geometry(mask.shape, "stretch", None, None, "antialias").place(size)
            mask = resize_mask(read_mask(drawn, size), placement, mask.shape)
        masks.append(mask)
    labels = np.array([records[path].label for path in paths])
    return image_metrics(scores, labels) | pixel_metrics(maps, masks, FPR_LIMIT)


def image_size(file: Path) -> tuple[int, int]:
    """Return (H, W) of an image file."""
    from PIL import Image

    with Image.open(file) as image:
        return image.height, image.width


def draw(root: Path, weights: Path) -> None:
    """Write the demo's nut, and random weights for the backbone."""
    from anomaly_lab.data.sets.demo.parts import write_demo

    write_demo(root, "nut")
    draw_weights(weights)


def draw_weights(file: Path) -> None:
    """Write random weights for the backbone."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model(BACKBONE, pretrained=False).state_dict(), file)


def peer(task: Task) -> None:
    """Fit and test anomalib's method through its Engine; keep path, raw score and map of every test image."""
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
            self.map.append(outputs.anomaly_map.reshape(-1, task.side, task.side))

    torch.set_num_threads(int(THREADS))
    torch.manual_seed(0)
    normalise = Normalize([0.5] * 3, [0.5] * 3)  # what these weights were trained with
    image, pixel = ["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]
    metrics = [AUROC(image, prefix="image_"), AUROC(pixel, prefix="pixel_"), AUPRO(pixel)]
    bare = {"post_processor": False, "evaluator": Evaluator(test_metrics=metrics), "visualizer": False}
    bare["pre_processor"] = PreProcessor(Compose([Resize((task.side, task.side), antialias=True), normalise]))
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
    main(sys.argv[1:])
