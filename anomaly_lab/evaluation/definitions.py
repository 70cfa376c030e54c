"""Which definition of a metric a number is of; it takes neither torch nor anything else.

Whoever changes what a metric comes to for the same scores and masks raises its version here, with a line in
the changelog. A run keeps the versions of its metrics in its manifest; one that keeps none has version 1 of
all. ``python -m anomaly_lab report report.rescore=true`` computes those of finished runs anew.
"""

from collections.abc import Mapping

FIRST = 1  # of runs that keep no version
VERSIONS = {
    "image_auroc": 1,
    "image_ap": 1,
    "image_f1_max": 1,
    "pixel_auroc": 1,
    "pixel_ap": 1,
    "pixel_f1_max": 1,
    "pixel_aupro": 1,
}

# What a group of metrics is measured on, by what their names begin with; none is computed anew from scores.
# poison: 2 since severity 3 lies beyond the ranges of the training copies, at whose ends it was before.
PROTOCOLS = {"poison": 2}


def current(name: str) -> int:
    """Return the version of a metric, or of what a group of metrics is measured on, as computed now."""
    return PROTOCOLS.get(name, VERSIONS.get(name, FIRST))


def versions_of(metrics: Mapping[str, float]) -> dict[str, int]:
    """Return the version of each metric that has one, and of what it is measured on, as computed now."""
    found = {name: version for name, version in VERSIONS.items() if name in metrics}
    measured = {start for start in PROTOCOLS for name in metrics if name.startswith(start)}
    return found | {start: PROTOCOLS[start] for start in sorted(measured)}
