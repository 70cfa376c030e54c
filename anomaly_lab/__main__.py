"""The command line, ``python -m anomaly_lab model=NAME ``: Hydra composes, `run` validates and runs."""

import gc
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from anomaly_lab.errors import ConfigError

PACKAGE = Path(__file__).parent
ROOT = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent  # in a wheel; in a checkout
TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"


def train_and_test(cfg: DictConfig) -> dict[str, float]:
    """Do a run; return its metrics."""
    gc.disable()  # what is imported is no garbage; to look through all of it again and again takes a second
    from anomaly_lab.run import run  # noqa: PLC0415 - it brings torch, which --help can do without

    gc.freeze()
    gc.enable()
    return run(cfg)


def main(work: Callable[[DictConfig], dict[str, float] | None] = train_and_test) -> int:
    """Do the work with what the command line says; return 0, or 1 after an error, or 130 after an interrupt."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    codes, cells = [0], []

    def job(cfg: DictConfig) -> None:  # returns nothing: a sweeper would optimise a metric of the test set
        cells.append((HydraConfig.get().overrides.task, found := dict[str, float]()))
        try:
            found.update(work(cfg) or {})
        except Exception as error:
            from anomaly_lab.explain import report  # noqa: PLC0415 - most runs do without

            codes.append(report(error, tracebacks=TRACEBACKS))  # caught here: the other jobs of a sweep go on
        finally:
            gc.collect()  # a job's images lie in cycles, and the next job brings its own
            gc.freeze()  # what is left, the libraries, is not looked through again

    try:
        prepare()
        hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")(job)()
        if len(cells) > 1 and any(metrics for _, metrics in cells):
            from anomaly_lab.sweeps import table  # noqa: PLC0415 - most runs do without

            print(table(cells))
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        from anomaly_lab.explain import explained, report  # noqa: PLC0415 - as above

        codes.append(report(explained(error), tracebacks=TRACEBACKS))
    return max(codes)


def prepare() -> None:
    """Check the arguments, quote their paths, and make the folder experiments/ a config group."""
    plain = r"-\w|--[\w-]+|[+\w.@/]+=[A-Za-z0-9_/][A-Za-z0-9_/-]*"  # Hydra reads these as they are
    if not all(re.fullmatch(plain, argument) for argument in sys.argv[1:]):
        from anomaly_lab.explain import keep_path  # noqa: PLC0415 - as above

        sys.argv[1:] = [keep_path(argument) for argument in sys.argv[1:]]
    parser = get_args_parser()
    parser.exit_on_error = False
    options, unknown = parser.parse_known_args()
    if unknown:
        raise ConfigError(f"{unknown[0]} is no option; keys are set by key=value, all of them after the options")
    if any(re.match(r"\+experiments=.*,", override) for override in options.overrides):
        raise ConfigError("experiments: each is a sweep of its own; give one at a time")
    for file in Path(options.config_dir).glob("*/*.yaml") if options.config_dir else ():
        if any((folder / file.parent.name / file.name).exists() for folder in (ROOT / "conf", ROOT)):
            raise ConfigError(f"{file}: there is a shipped option of this name; rename the file")
    for file in (ROOT / "experiments").glob("*.yaml"):  # a group is a folder inside conf/, or what is stored
        ConfigStore.instance().store(file.stem, OmegaConf.load(file), group="experiments", package="_global_")


if __name__ == "__main__":
    sys.exit(main())
