"""The top level of a config.

What stands below a ``_target_`` is checked against the signature of what it names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from anomaly_lab.backbones.cache import Cache
from anomaly_lab.data.base import AnomalyDataModule
from anomaly_lab.evaluation.settings import EvaluationSettings
from anomaly_lab.methods.base import AnomalyMethod
from anomaly_lab.synthesis.base import Synthesizer
from anomaly_lab.training.loggers.base import Mirror
from anomaly_lab.training.settings import TrainerSettings
from anomaly_lab.types import EVALUATION_ONLY, SAME_RUN


@dataclass(frozen=True)
class Frame:
    """The keys of conf/config.yaml.

    What others point to comes first, so that an error names the key as it was written.

    Attributes:
        seed: makes another run, but has its own part in the run directory's name.
        allow: top-level modules outside this package that a ``_target_`` may name.
        tags: words for the manifest and for dashboards.
        resume: go on with a run that was broken off.
        retry: ``failed``: a sweep runs its failed runs again.
        textures: what the pseudo anomalies are made of that want it (synthesis.perlin_texture); it counts
            there, and nowhere else.
    """

    seed: Annotated[int, SAME_RUN]
    tag: Annotated[str, SAME_RUN]
    tags: Annotated[Sequence[str], SAME_RUN]
    runs: Annotated[str, SAME_RUN]
    allow: Annotated[Sequence[str], SAME_RUN]
    resume: Annotated[bool, SAME_RUN]
    retry: Annotated[Literal["none", "failed"], SAME_RUN]
    textures: Annotated[str | None, SAME_RUN]
    evaluation: Annotated[EvaluationSettings, EVALUATION_ONLY]
    cache: Annotated[Cache, SAME_RUN]
    synthesis: Synthesizer
    model: AnomalyMethod
    data: AnomalyDataModule
    trainer: TrainerSettings
    logger: Annotated[Mapping[str, Mirror], SAME_RUN]
