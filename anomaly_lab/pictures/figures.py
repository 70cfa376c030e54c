"""What the curves of a run look like."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from anomaly_lab.evaluation.evaluate import Numbers
from anomaly_lab.pictures.sheets import drawn, png
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.types import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = "roc_pr"
WIDTH = 9.0  # inches of a picture, of 150 pixels each: its words are readable at 900 pixels, too
GREY = "#8a8a8a"
INK = "#262626"
COLOURS = {"image": "#0072b2", "pixel": "#d55e00"}  # Okabe and Ito's, told apart by every eye


class Panel(NamedTuple):
    """One plot: the metric that is its area (AUPRO's up to a limit), its columns in curves.npz, its words."""

    metric: str
    x: str
    y: str
    title: str
    labels: tuple[str, str]


PANELS = (
    Panel("auroc", "fpr", "tpr", "ROC", ("false positive rate", "true positive rate")),
    Panel("ap", "tpr", "precision", "Precision and recall", ("recall", "precision")),
    Panel(
        "aupro",
        "fpr",
        "overlap",
        "Per-region overlap",
        ("false positive rate", "mean overlap of the regions"),
    ),
)


def draw_curves(directory: RunDirectory, numbers: Numbers, fpr_limit: float) -> list[Picture]:
    """Write and return figures/roc_pr.png, if there is a curve; AUPRO counts to the limit, in (0, 1]."""
    if not numbers.curves:
        return []
    title = " / ".join(directory.path.parts[-4:])
    with directory.replacing(f"figures/{CURVES}.png") as file:
        file.write_bytes(png(drawn(curves_figure(numbers.curves, numbers.metrics, title, fpr_limit))))
    return [Picture(directory.path / "figures" / f"{CURVES}.png", CURVES, title)]


def curves_figure(
    curves: Mapping[str, np.ndarray], metrics: Mapping[str, float], title: str, fpr_limit: float
) -> "Figure":
    """Draw what `Curves.curves` gave, one square panel a metric.

    The keys are ``{image,pixel}_{fpr,tpr,precision,overlap}``.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second, and the numbers do without

    panels = [panel for panel in PANELS if any(f"{level}_{panel.y}" in curves for level in COLOURS)]
    pitch = WIDTH / len(panels)  # inches, as all that follows
    side = pitch - 0.85  # for the vertical axis' words
    below = 1.4  # for the legend
    figure = Figure(figsize=(WIDTH, below + side + 0.7))
    figure.suptitle(title, y=1 - 0.12 / figure.get_figheight(), fontsize=11, color=INK, parse_math=False)
    for position, panel in enumerate(panels):
        left = position * pitch + 0.65
        scale = WIDTH, figure.get_figheight()
        axes = figure.add_axes((left / scale[0], below / scale[1], side / scale[0], side / scale[1]))
        _draw_curves(axes, panel, curves, metrics)
        if panel.metric == "aupro":
            label = f"AUPRO counts up to {fpr_limit:.3g}"
            axes.axvline(fpr_limit, color=GREY, linewidth=1.2, linestyle=":", label=label)
        axes.legend(loc="upper left", bbox_to_anchor=(-0.3 / side, -0.45 / side), fontsize=8.2, frameon=False)
    return figure


def _draw_curves(
    axes: "Axes", panel: Panel, curves: Mapping[str, np.ndarray], metrics: Mapping[str, float]
) -> None:
    for level, colour in COLOURS.items():
        if f"{level}_{panel.y}" in curves:
            # The area under such steps is the average precision; the other areas lie under straight lines.
            style = "steps-pre" if panel.metric == "ap" else "default"
            x = curves[f"{level}_{panel.x}"]
            y = curves[f"{level}_{panel.y}"]
            axes.plot(
                x, y, color=colour, linewidth=1.8, drawstyle=style, label=_label(level, panel.metric, metrics)
            )
    if (point := operating_points(curves, metrics).get(panel.metric)) is not None:
        look: dict[str, Any] = {
            "color": "white",
            "markeredgecolor": INK,
            "markeredgewidth": 1.6,
            "markersize": 7,
        }
        label = f"threshold {metrics['threshold']:.4g}: ({point[0]:.3f}, {point[1]:.3f})"
        axes.plot(*point, "o", **look, zorder=4, clip_on=False, label=label)
    _draw_chance(axes, panel, curves)
    axes.set_title(panel.title, y=1, fontsize=10, color=INK)  # a given place is not searched for
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.set_xlabel(panel.labels[0], fontsize=9.5)
    axes.set_ylabel(panel.labels[1], fontsize=9.5)
    axes.tick_params(labelsize=8.5)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _label(level: str, metric: str, metrics: Mapping[str, float]) -> str:
    """Return ``image AUROC 0.953 (95 %: 0.910 to 0.981)``; the interval is the bootstrap's."""
    name = f"{level}_{metric}"
    low, high = (metrics.get(f"{name}_{end}") for end in ("low", "high"))
    interval = "" if low is None or high is None else f" (95 %: {low:.3f} to {high:.3f})"
    return f"{level} {metric.upper()} {metrics[name]:.3f}{interval}"


def _draw_chance(axes: "Axes", panel: Panel, curves: Mapping[str, np.ndarray]) -> None:
    """Draw what scores that know nothing give: the diagonal, or the share of positives."""
    style: dict[str, Any] = {"color": GREY, "linewidth": 1, "linestyle": "--", "zorder": 1.5}
    if panel.metric != "ap":
        axes.plot([0, 1], [0, 1], label="chance", **style)
        return
    shares = {level: prevalence(curves, level) for level in COLOURS if f"{level}_precision" in curves}
    named = "chance: " + ", ".join(f"{level} {share:.3g}" for level, share in shares.items())
    for share, label in zip(shares.values(), (named, None), strict=False):
        axes.plot([0, 1], [share, share], label=label, **style)


def prevalence(curves: Mapping[str, np.ndarray], level: str) -> float:
    """Return the share of positives: the precision where everything is called anomalous."""
    return float(curves[f"{level}_precision"][-1])


def operating_points(
    curves: Mapping[str, np.ndarray], metrics: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Return where the run's threshold lies, (x, y) by the panel's metric.

    It lies on no precision if it finds nothing.
    """
    fpr, recall = (metrics.get(f"image_{name}_at_threshold") for name in ("fpr", "recall"))
    if fpr is None or recall is None:
        return {}
    share = prevalence(curves, "image")
    hits = recall * share
    called = recall * share + fpr * (1 - share)
    return {"auroc": (fpr, recall)} | ({"ap": (recall, hits / called)} if called else {})
