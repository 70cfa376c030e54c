"""Running the framework in tests as the command line does, without its process."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from anomaly_lab.config.checked import Checked
from anomaly_lab.config.composing import Composition
from anomaly_lab.config.composing import composed as compose
from anomaly_lab.train import run

CHECKOUT = Path(__file__).parents[2]
CONF = CHECKOUT / "conf"


def options(group: str) -> list[str]:
    """Return the names of a group's options, as found on the disk."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def asked(*overrides: str, sweeping: bool = False) -> Composition:
    """Return what these overrides ask for."""
    return compose(overrides)._replace(sweeping=sweeping)


def composed(*overrides: str) -> DictConfig:
    """Return the config of these overrides."""
    return asked(*overrides).cfg


def checked(*overrides: str) -> Checked:
    """Return the config of these overrides, checked."""
    return Checked.of(composed(*overrides), ())


def ran(tmp_path: Path, *overrides: str, sweeping: bool = False) -> tuple[dict[str, float], Path]:
    """Run in ``tmp_path/runs``; return the metrics and the run directory."""
    done = run(asked(f"runs='{tmp_path}/runs'", *overrides, sweeping=sweeping))
    return done.metrics, done.path


def on_tree(root: Path, category: str = "part") -> Sequence[str]:
    """Return the overrides that point at a tree made by tests.support.trees.mvtec_tree."""
    return ("data=mvtec", f"data.root='{root}'", f"data.category={category}")
