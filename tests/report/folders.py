"""Run directories as a report reads them, without the runs."""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml


def kept(
    root: Path,
    place: str,
    seed: int = 0,
    *,
    status: str = "done",
    differs: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    tag: str = "run",
    started: str = "",
    config_hash: str = "",
    manifest: dict[str, Any] | None = None,
    **metrics: float,
) -> Path:
    """Write a run directory; ``place`` is MODEL/DATA/CATEGORY, ``config`` what its recipe has.

    ``manifest`` is what else its manifest has.
    """
    digest = config_hash or hashlib.sha256(json.dumps([differs, started]).encode()).hexdigest()
    name = f"{tag}-{digest[:8]}-seed{seed}"
    folder = root / place / name
    folder.mkdir(parents=True)
    content = {
        "status": status,
        "seed": seed,
        "tag": tag,
        "started": started,
        "choices": {"synthesis": "none"},
        "differs": differs or {},
        "seconds": 1.5,
    }
    content |= {"config_hash": config_hash} if config_hash else {}
    content |= {"error": "DataError: gone"} if status == "failed" else {}
    (folder / "manifest.json").write_text(json.dumps(content | (manifest or {})))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.yaml").write_text(yaml.safe_dump(config or {}))
    return folder
