"""Sizes and times of every recipe, as in figures 5 and 6 of De Nardin et al.'s survey.

    python -m tests.bench.bench_cost [--out FOLDER] [--recipes NAME ...] [--device cuda] [--images N]
        [--repeats N] [--limit SECONDS] [--threads N] [--no-onnx] [--tiny]

Each recipe is measured in a process of its own: random weights, float32, one image, its own size of image.
FOLDER (a temporary one unless given) gets sizes_and_times.json, .md and .png after each recipe. What the
.json has of other recipes, on the same device and with as many images, stays: --recipes measures a few anew.
--tiny: three small recipes in this process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.bench.costs import Cost, Plan, cost_of, device_name
from tests.support.runs import options

NAME = "sizes_and_times"
REPEATS = 100  # fewer stand beside a time
TINY = {
    "unet_small": ["data.image_size=64"],
    "variation": [],
    "patchcore_small": ["data.image_size=64", "model.coreset=0.1"],
}


def main(arguments: Sequence[str]) -> None:
    """Measure, write the files and print the page; or, where this file started itself, measure one."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--recipes", nargs="+", choices=options("model"), default=options("model"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--limit", type=float, default=600.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-onnx", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    plan = Plan(given.images, given.repeats, 10, given.limit, not given.no_onnx, torch.device(given.device))
    if given.tiny:
        plan = plan._replace(images=4, repeats=2, warm_ups=1, onnx=False)
    if given.one:
        print(json.dumps(cost_of(given.one, plan)._asdict()))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        known = before(folder, plan)
        if isinstance(known, str):
            parser.error(known)
        for recipe in TINY if given.tiny else given.recipes:
            if given.tiny:
                found: Cost | str = cost_of(recipe, plan, *TINY[recipe])
            else:
                found = in_its_process(recipe, arguments)
            known["recipes"][recipe] = found if isinstance(found, str) else found._asdict()
            written(folder, known)
        print((folder / f"{NAME}.md").read_text(encoding="utf-8"))


def before(folder: Path, plan: Plan) -> dict[str, Any] | str:
    """Return what is known of other recipes, or why it cannot stay beside what is measured now."""
    how = {"device": device_name(plan.device), "images": plan.images, "warm_ups": plan.warm_ups}
    file = folder / f"{NAME}.json"
    if not file.is_file():
        return how | {"recipes": {}}
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    unlike = [key for key, value in how.items() if known[key] != value]
    if unlike:
        return f"{file}: is of {unlike[0]}={known[unlike[0]]}, not {how[unlike[0]]}; give another --out"
    return known


def written(folder: Path, known: dict[str, Any]) -> None:
    """Write what is known, its page and its picture."""
    from anomaly_lab.pictures.sheets import drawn, png

    costs = [
        Cost(**one | {"size": tuple(one["size"])})
        for one in known["recipes"].values()
        if isinstance(one, dict)
    ]
    (folder / f"{NAME}.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    (folder / f"{NAME}.md").write_text(page(costs, known), encoding="utf-8")
    if costs:
        (folder / f"{NAME}.png").write_bytes(png(drawn(figure(costs, known["device"]))))


def in_its_process(recipe: str, arguments: Sequence[str]) -> Cost | str:
    """Return what a recipe costs, or the last line that its process said."""
    print(f"{recipe} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "tests.bench.bench_cost", *arguments, "--one", recipe]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return f"exit code {done.returncode}: {said[-1][:160] if said else 'it said nothing'}"
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def page(costs: Sequence[Cost], known: dict[str, Any]) -> str:
    """Return the page: how it was measured, the table by size, what is missing and why."""
    ordered = sorted(costs, key=lambda cost: (cost.parameters, cost.recipe))
    lines = [
        "# Sizes and times",
        "",
        "    python -m tests.bench.bench_cost --out experiments",
        "",
        *textwrap.wrap(" ".join(INTRODUCTION.format(**known, repeats=REPEATS).split()), 100),
        "",
        f"![sizes and times]({NAME}.png)",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"| --- | --- {'| ---: ' * (len(COLUMNS) - 2)}|",
        *(row(cost) for cost in ordered),
    ]
    reasons = {cost.recipe: cost.no_onnx for cost in ordered if cost.no_onnx}
    if reasons:
        lines += ["", "No ONNX graph of:", ""]
        lines += [f"- `{recipe}`: {reason}" for recipe, reason in reasons.items()]
    failed = dict.fromkeys(options("model"), "not yet") | known["recipes"]
    failed = {recipe: one for recipe, one in failed.items() if isinstance(one, str)}
    if failed:
        lines += ["", "Not measured:", "", *(f"- `{recipe}`: {reason}" for recipe, reason in failed.items())]
    return "\n".join(lines) + "\n"


COLUMNS = (
    "recipe",
    "image",
    "parameters, M",
    "trained, M",
    "parameters, MB",
    "learned, MB (a further image)",
)
COLUMNS += ("forward, MB", "backward, MB", "checkpoint, MB", "ONNX, MB", "ms an image")
INTRODUCTION = """
Every recipe as figures 5 and 6 of De Nardin et al.'s survey have theirs. The survey's data, size of image
and machine are not given and its bars' values could not be read: these numbers can be ranked, not compared
with it. **Supervised** recipes learn from labelled defects; `_small` ones are no paper's. Measured on
{device}; weights are random, in float32; each recipe has its own size of image, one at a time. MB are of
10^6 bytes. *Learned* is what a checkpoint keeps beside the parameters, after a fit on {images} images of
noise where there is one, and in brackets by how much it grows with a further one; a bank's search takes
longer the larger it is. *Forward* is the output of each module, summed, as hooks see it when an image is
scored: what functions compute is not in it, and what is written in place counts again. *Backward* is the
gradients of these outputs in a training step of one image. The time is the median of {repeats} images after
{warm_ups} others, unless a smaller number stands beside it.
"""


def row(cost: Cost) -> str:
    """Return a line of the table."""
    name = f"`{cost.recipe}`{' (supervised)' if cost.supervised else ''}"
    growth = f" ({number(cost.learned_mb_an_image)})" if cost.learned_mb_an_image else ""
    fewer = f" (of {cost.repeats})" if cost.repeats < REPEATS else ""
    cells = [
        name,
        " x ".join(map(str, cost.size)),
        number(cost.parameters / 1e6),
        number(cost.trained / 1e6),
        number(cost.parameters_mb),
        f"{number(cost.learned_mb)}{growth}",
        number(cost.forward_mb),
        number(cost.backward_mb),
        number(cost.checkpoint_mb),
        "" if cost.onnx_mb is None else number(cost.onnx_mb),
        f"{number(cost.milliseconds)}{fewer}",
    ]
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Return it with three digits that say something."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def figure(costs: Sequence[Cost], device: str) -> Any:
    """Draw the stacked sizes and the times of the full recipes, or of all if there is none."""
    from matplotlib.figure import Figure

    full = [cost for cost in costs if not cost.recipe.endswith("_small")] or list(costs)
    ordered = sorted(full, key=lambda cost: -cost.parameters)
    names = [f"{cost.recipe}*" if cost.supervised else cost.recipe for cost in ordered]
    drawn = Figure(figsize=(12, 1.5 + 0.32 * len(names)), layout="constrained")
    sizes, times = drawn.subplots(1, 2, sharey=True)
    left = [0.0] * len(names)
    parts = {
        "parameters": ("parameters_mb", "#0072b2"),
        "learned by a fit, norms": ("learned_mb", "#56b4e9"),
        "forward": ("forward_mb", "#e69f00"),
        "backward": ("backward_mb", "#d55e00"),
    }
    for label, (field, colour) in parts.items():
        values = [getattr(cost, field) for cost in ordered]
        sizes.barh(names, values, left=left, label=label, color=colour)
        left = [a + b for a, b in zip(left, values, strict=True)]
    sizes.set(xlabel="MB, one image", title="Sizes")
    drawn.legend(loc="outside upper center", ncols=len(parts), frameon=False)
    times.barh(names, [cost.milliseconds for cost in ordered], color="#8a8a8a")
    times.set(xlabel="ms to score an image", title=f"Times, {device}", xscale="log")
    drawn.supxlabel("* supervised", fontsize="small")
    return drawn


if __name__ == "__main__":
    main(sys.argv[1:])
