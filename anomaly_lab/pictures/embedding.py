"""How the embeddings of the test images lie, for methods that score an image by one vector."""

import logging
from functools import lru_cache
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from anomaly_lab.pictures.figures import GREY, INK, WIDTH
from anomaly_lab.pictures.sheets import drawn, png
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.types import ImageRecord, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)
FEWEST = 5  # images of which a scatter plot says something
DEFECT_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DEFECT_MARKERS = "^sDvP*XphH<>"  # 12 markers and 7 colours: 84 defects look different


def draw_embedding(
    directory: RunDirectory, records: list[ImageRecord], embedding: np.ndarray, name: str
) -> list[Picture]:
    """Write figures/tsne.png and tsne.csv of the (N, D) float32 embeddings of N test images.

    Further vectors of a method have a name of letters, and write tsne_NAME.png and tsne_NAME.csv.

    Returns:
        the picture; none of fewer than five images.
    """
    file_name = f"tsne_{name}" if name else "tsne"
    if len(records) < FEWEST:
        log.info("no figures/%s.png: %d test images are fewer than %d", file_name, len(records), FEWEST)
        return []
    title = " / ".join(directory.path.parts[-4:-1])  # not the run's own: cells of a sweep share the picture
    defects = tuple(record.defect if record.label else "" for record in records)
    points, picture = _last_drawn(embedding.tobytes(), embedding.shape[1], defects, title, name)
    pairs = zip(records, points.tolist(), strict=True)
    rows = [(record.image.as_posix(), record.defect, int(record.label), *point) for record, point in pairs]
    directory.write_table(f"figures/{file_name}.csv", ("path", "defect", "label", "x", "y"), rows)
    with directory.replacing(f"figures/{file_name}.png") as file:
        file.write_bytes(picture)
    caption = " / ".join(directory.path.parts[-4:])
    return [Picture(directory.path / "figures" / f"{file_name}.png", file_name, caption)]


@lru_cache(maxsize=2)  # a method's embeddings, and further vectors
def _last_drawn(
    content: bytes, width: int, defects: tuple[str, ...], title: str, name: str
) -> tuple[np.ndarray, bytes]:
    """Return `tsne` of the (N, width) float32 content, and its picture's file.

    The cells of a sweep over what only scores, k for one, share both.
    """
    points = tsne(np.frombuffer(content, np.float32).reshape(-1, width))
    return points, png(drawn(scatter_figure(points, np.array(defects), title, name)))


def tsne(embedding: np.ndarray) -> np.ndarray:
    """Return (N, 2) float32 places, by t-SNE, of (N, D) float32 embeddings, N >= 5.

    t-SNE (van der Maaten, Hinton, JMLR 2008) is of the 50 first principal components, begun at the first two;
    it is the same whatever the number of threads.
    """
    from sklearn.manifold import TSNE  # noqa: PLC0415 - takes a second, and the numbers do without
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - as above

    centred = (embedding - embedding.mean(axis=0, dtype=np.float64)).astype(np.float64)
    scale = np.abs(centred).max()
    if scale <= 1e-6 * np.abs(embedding).max():  # all alike but for rounding: one place
        return np.zeros((len(embedding), 2), np.float32)
    # More threads gain nothing, add up in another order, and wait long for a busy neighbour.
    with threadpool_limits(1):
        left, singular, _ = np.linalg.svd(centred / scale, full_matrices=False)
        components = (left * singular)[:, :50]
        components = np.pad(components, ((0, 0), (0, max(0, 2 - components.shape[1]))))
        start = components[:, :2] / components[:, 0].std() * 1e-4
        perplexity = min(30.0, (len(embedding) - 1) / 3)
        places = TSNE(perplexity=perplexity, init=start.astype(np.float32), random_state=0).fit_transform(
            components
        )
    return np.asarray(places, np.float32)


def scatter_figure(points: np.ndarray, kinds: np.ndarray, title: str, name: str) -> "Figure":
    """Draw (N, 2) places: normal images, whose (N,) kind is empty, grey, below the others.

    Each defect has its own colour and marker, with its count.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second, and the numbers do without
    from matplotlib.textpath import TextPath  # noqa: PLC0415 - as above

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
    vectors = f"{name} vectors" if name else "embeddings"
    said = f"t-SNE of the test images' {vectors}: near is alike, the axes mean nothing"
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
