"""All pictures of a run, from what was collected."""

from anomaly_lab.data.decoding import Split
from anomaly_lab.evaluation.collect import Scored
from anomaly_lab.evaluation.evaluate import Numbers
from anomaly_lab.evaluation.predictor import Predictor
from anomaly_lab.evaluation.settings import EvaluationSettings
from anomaly_lab.pictures.embedding import draw_embedding
from anomaly_lab.pictures.figures import draw_curves
from anomaly_lab.pictures.overlays import draw_copies, draw_overlays
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.types import Picture


def draw(
    directory: RunDirectory,
    test: Split,
    scored: Scored,
    numbers: Numbers,
    predictor: Predictor,
    how: EvaluationSettings,
) -> list[Picture]:
    """Draw curves, embeddings, overlays, and poisoned copies where they were scored; none with overlays=0."""
    if not how.overlays:
        return []
    pictures = draw_copies(directory, test) if "poisoned_image_auroc" in numbers.metrics else []
    pictures += draw_curves(directory, numbers, how.fpr_limit)
    if scored.embedding is not None:
        pictures += draw_embedding(directory, scored.records, scored.embedding, "")
    for name, vectors in scored.latents.items():
        pictures += draw_embedding(directory, scored.records, vectors, name)
    threshold = numbers.metrics.get("threshold")
    return pictures + draw_overlays(directory, test, scored.scores, predictor, threshold, how.overlays)
