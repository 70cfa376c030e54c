"""The wheel is whole: away from the checkout, all recipes and experiments that it ships compose and fit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
SCRIPT = """
import json, sys
sys.path = [entry for entry in sys.path if entry != sys.argv[1]]
import anomaly_lab
from anomaly_lab.config.checked import Checked
from anomaly_lab.config.composing import composed
from anomaly_lab.config.own_code import ROOT
from omegaconf import OmegaConf

groups = ("conf/model", "experiments")
names = {group: sorted(file.stem for file in (ROOT / group).glob("*.yaml")) for group in groups}
for model in names["conf/model"]:
    Checked.of(composed([f"model={model}", "data=demo"]).cfg, ())
for experiment in names["experiments"]:
    swept = OmegaConf.load(ROOT / "experiments" / f"{experiment}.yaml").hydra.sweeper.params
    cell = [f"{key}={str(value).split(',')[0]}" for key, value in swept.items()]
    cell += [] if "data" in swept else ["data=mvtec"]
    cell += [] if "data.category" in swept else ["data.category=part"]
    Checked.of(composed([f"experiment={experiment}", "hydra.mode=RUN", *cell]).cfg, ())
print(json.dumps({"package": anomaly_lab.__file__, **names}))
"""


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", str(CHECKOUT), "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    pip("install", "--no-deps", "--target", str(folder / "site"), str(next(folder.glob("*.whl"))))
    return folder / "site"


def test_recipes_and_experiments_of_the_wheel_compose_and_validate(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(CHECKOUT)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["package"]).is_relative_to(installed)
    for group in ("conf/model", "experiments"):
        assert found[group] == sorted(f.stem for f in (CHECKOUT / group).glob("*.yaml"))
        assert found[group]
