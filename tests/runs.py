"""Running the framework in tests as the command line does, without its process."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from anomaly_lab.run import run

MODE = "RUN"
CONF = Path(__file__).parent.parent / "conf"


def options(group: str) -> list[str]:
    """Return the names of a group's options, as found on the disk."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml") if not file.stem.startswith("_"))


def composed(*overrides: str) -> DictConfig:
    """Return the config of these overrides, with Hydra's own part set for whoever asks for it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", list(overrides), return_hydra_config=True)
    cfg.hydra.mode = MODE
    HydraConfig.instance().set_config(cfg)
    cfg = cfg.copy()
    OmegaConf.set_readonly(cfg, value=False)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def ran(tmp_path: Path, *overrides: str) -> tuple[dict[str, float], Path]:
    """Run in ``tmp_path/runs``; return the metrics and the one run directory that is new or was used."""
    before = set((tmp_path / "runs").glob("*/*/*/*/manifest.json"))
    cfg = composed(f"runs='{tmp_path}/runs'", *overrides)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        metrics = run(cfg)
    after = set((tmp_path / "runs").glob("*/*/*/*/manifest.json"))
    return metrics, (after - before or after).pop().parent


def on_tree(root: Path, category: str = "part") -> Sequence[str]:
    """Return the overrides that point at a tree made by tests.trees.mvtec_tree."""
    return ("data=mvtec", f"data.root='{root}'", f"data.category={category}")
