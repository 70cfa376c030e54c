"""Two pictures of a run: what its curves look like, and how its embeddings of the test images lie."""

import logging
from collections.abc import Mapping
from functools import lru_cache
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple, final

import lightning as L
import numpy as np
import torch
from torch import Tensor

from anomaly_lab.callbacks.pictures import drawn, png
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.results import RunDirectory
from anomaly_lab.types import EvalBatch, ImageRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)
FEWEST = 5  # images of which a scatter plot says something
WIDTH = 9.0  # inches of a picture, of 150 pixels each: its words are readable at 900 pixels, too
GREY, INK = "#8a8a8a", "#262626"
COLOURS = {"image": "#0072b2", "pixel": "#d55e00"}  # Okabe and Ito's, told apart by every eye
DEFECT_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DEFECT_MARKERS = "^sDvP*XphH<>"  # 12 markers and 7 colours: 84 defects look different


class Panel(NamedTuple):
    """One plot: the metric that is its area, its columns in curves.npz, its words."""

    metric: str
    x: str
    y: str
    title: str
    labels: tuple[str, str]


PANELS = (
    Panel("auroc", "fpr", "tpr", "ROC", ("false positive rate", "true positive rate")),
    Panel("ap", "tpr", "precision", "Precision and recall", ("recall", "precision")),
    Panel("aupro", "fpr", "overlap", "Per-region overlap", ("false positive rate", "mean overlap of the regions")),
)


@final
class Figures(L.Callback):
    """Writes figures/roc_pr.png and, for a method that embeds an image, figures/tsne.png and tsne.csv.

    It runs after `Evaluation`, whose curves.npz and metrics.json it reads.
    """

    def __init__(self, directory: RunDirectory, data: AnomalyDataModule) -> None:
        self.directory, self.data = directory, data

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start afresh."""
        self.embeds, self.rows = True, list[int]()
        self.embeddings: list[Tensor] = []

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: EvalBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Embed the test images, unless the first of them have shown that the method does not."""
        assert isinstance(pl_module, AnomalyMethod)
        if dataloader_idx == 1 and self.embeds:
            with torch.inference_mode(), trainer.precision_plugin.forward_context():
                embedding = pl_module.embed(batch.image)
            self.embeds = embedding is not None
            if embedding is not None:
                self.rows += batch.row.tolist()
                self.embeddings.append(embedding.float().cpu())

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw."""
        with np.load(self.directory.path / "curves.npz") as curves:
            if curves:
                title = " / ".join(self.directory.path.parts[-4:])
                self._save("roc_pr", curves_figure(curves, self.directory.metrics(), title))
        if 0 < len(self.rows) < FEWEST:
            log.info("no figures/tsne.png: %d test images are fewer than %d", len(self.rows), FEWEST)
        elif self.rows:
            self._embedding()

    def _embedding(self) -> None:
        order = np.argsort(self.rows)
        records = [self.data.test.records[self.rows[position]] for position in order]
        embedding = torch.cat(self.embeddings).numpy()[order]
        points = _last_tsne(embedding.tobytes(), embedding.shape[1])
        pairs = zip(records, points.tolist(), strict=True)
        rows = [(record.image.as_posix(), record.defect, int(record.label), *point) for record, point in pairs]
        self.directory.write_table("figures/tsne.csv", ("path", "defect", "label", "x", "y"), rows)
        self._save("tsne", scatter_figure(points, records, " / ".join(self.directory.path.parts[-4:])))

    def _save(self, name: str, figure: "Figure") -> None:
        with self.directory.replacing(f"figures/{name}.png") as file:
            file.write_bytes(png(drawn(figure)))


def curves_figure(curves: Mapping[str, np.ndarray], metrics: Mapping[str, float], title: str) -> "Figure":
    """Draw what `Curves.curves` gave, by ``{image,pixel}_{fpr,tpr,precision,overlap}``, one square panel a metric."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second, and the numbers do without

    panels = [panel for panel in PANELS if any(f"{level}_{panel.y}" in curves for level in COLOURS)]
    pitch = WIDTH / len(panels)  # inches, as all that follows
    side, below = pitch - 0.85, 1.4  # for the vertical axis' words; for the legend
    figure = Figure(figsize=(WIDTH, below + side + 0.7))
    figure.suptitle(title, y=1 - 0.12 / figure.get_figheight(), fontsize=11, color=INK, parse_math=False)
    for position, panel in enumerate(panels):
        left = position * pitch + 0.65
        scale = WIDTH, figure.get_figheight()
        axes = figure.add_axes((left / scale[0], below / scale[1], side / scale[0], side / scale[1]))
        _draw_curves(axes, panel, curves, metrics)
        axes.legend(loc="upper left", bbox_to_anchor=(-0.3 / side, -0.45 / side), fontsize=8.2, frameon=False)
    return figure


def _draw_curves(axes: "Axes", panel: Panel, curves: Mapping[str, np.ndarray], metrics: Mapping[str, float]) -> None:
    for level, colour in COLOURS.items():
        if f"{level}_{panel.y}" in curves:
            # The area under such steps is the average precision; the other areas lie under straight lines.
            style = "steps-pre" if panel.metric == "ap" else "default"
            x, y = curves[f"{level}_{panel.x}"], curves[f"{level}_{panel.y}"]
            axes.plot(x, y, color=colour, linewidth=1.8, drawstyle=style, label=_label(level, panel.metric, metrics))
    if (point := operating_points(curves, metrics).get(panel.metric)) is not None:
        look: dict[str, Any] = {"color": "white", "markeredgecolor": INK, "markeredgewidth": 1.6, "markersize": 7}
        label = f"threshold {metrics['threshold']:.4g}: ({point[0]:.3f}, {point[1]:.3f})"
        axes.plot(*point, "o", **look, zorder=4, clip_on=False, label=label)
    _draw_chance(axes, panel, curves)
    axes.set_title(panel.title, fontsize=10, color=INK)
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


def operating_points(curves: Mapping[str, np.ndarray], metrics: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Return where the run's threshold lies, (x, y) by the panel's metric; on no precision if it finds nothing."""
    fpr, recall = (metrics.get(f"image_{name}_at_threshold") for name in ("fpr", "recall"))
    if fpr is None or recall is None:
        return {}
    share = prevalence(curves, "image")
    hits, called = recall * share, recall * share + fpr * (1 - share)
    return {"auroc": (fpr, recall)} | ({"ap": (recall, hits / called)} if called else {})


@lru_cache(maxsize=1)
def _last_tsne(content: bytes, width: int) -> np.ndarray:
    """Return `tsne` of the (N, width) float32 content; the cells of a sweep over k share it."""
    return tsne(np.frombuffer(content, np.float32).reshape(-1, width))


def tsne(embedding: np.ndarray) -> np.ndarray:
    """Return (N, 2) float32 places of (N, D) float32 embeddings, N >= 5: t-SNE (van der Maaten, Hinton, JMLR 2008).

    Of the 50 first principal components, begun at the first two; the same whatever the number of threads.
    """
    from sklearn.manifold import TSNE  # noqa: PLC0415 - takes a second, and the numbers do without
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - as above

    centred = (embedding - embedding.mean(axis=0, dtype=np.float64)).astype(np.float64)
    scale = np.abs(centred).max()
    if scale <= 1e-6 * np.abs(embedding).max():  # all alike but for rounding: one place
        return np.zeros((len(embedding), 2), np.float32)
    with threadpool_limits(1):  # more gain nothing, add up in another order, and wait long for a busy neighbour
        left, singular, _ = np.linalg.svd(centred / scale, full_matrices=False)
        components = (left * singular)[:, :50]
        components = np.pad(components, ((0, 0), (0, max(0, 2 - components.shape[1]))))
        start = components[:, :2] / components[:, 0].std() * 1e-4
        perplexity = min(30.0, (len(embedding) - 1) / 3)
        places = TSNE(perplexity=perplexity, init=start.astype(np.float32), random_state=0).fit_transform(components)
    return np.asarray(places, np.float32)


def scatter_figure(points: np.ndarray, records: list[ImageRecord], title: str) -> "Figure":
    """Draw (N, 2) places: normal images grey, below; each defect in its own colour and marker, with its count."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second, and the numbers do without
    from matplotlib.textpath import TextPath  # noqa: PLC0415 - as above

    kinds = np.array([record.defect if record.label else "" for record in records])
    styles = zip(cycle(DEFECT_COLOURS), cycle(DEFECT_MARKERS), strict=False)
    looks = {"": (GREY, "o")} | dict(zip(sorted(set(kinds) - {""}), styles, strict=False))
    # matplotlib keeps labels that begin with _ out of a legend
    labels = {kind: f"{(kinds == kind).sum()} {kind[:30] or 'normal'}" for kind in looks}
    columns = 1 + len(looks) // 24
    plain = [label.replace("$", "S") for label in labels.values()]  # else it is read as a formula
    widest = max(TextPath((0, 0), label, size=9.5).get_extents().width for label in plain) / 72
    beside = columns * (0.6 + widest)  # inches; matplotlib's own layout would draw all twice
    width = max(WIDTH, 5.0 + beside)
    figure = Figure(figsize=(width, 5.6))
    said = "t-SNE of the test images' embeddings: near is alike, the axes mean nothing"
    figure.suptitle(f"{title}\n{said}", y=0.98, fontsize=11, color=INK, parse_math=False)
    axes = figure.add_axes((0.02, 0.03, 0.97 - beside / width, 0.85))
    for kind, (colour, marker) in looks.items():
        x, y = points[kinds == kind].T
        look: dict[str, Any] = {"c": colour, "marker": marker, "edgecolors": "white", "linewidths": 0.5}
        axes.scatter(x, y, s=34, alpha=0.85, label=labels[kind], **look)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.06)
    axes.spines[:].set_color("#cccccc")
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.02), "ncols": columns}
    legend = axes.legend(**place, fontsize=9.5, frameon=False, markerscale=1.3)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a folder's name is no formula
    return figure
