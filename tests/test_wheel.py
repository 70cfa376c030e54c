"""The wheel is whole: it has the files of the checkout, and works away from it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

CHECKOUT = Path(__file__).parent.parent
SCRIPT = """
import json, sys
sys.path = [entry for entry in sys.path if entry != sys.argv[1]]
import anomaly_lab
from anomaly_lab.config.checked import Checked
from anomaly_lab.config.composing import composed
from anomaly_lab.runs.papers import paper_tables

assert paper_tables()
Checked.of(composed(["model=prff"]).cfg, ())
Checked.of(composed(["experiment=demo", "hydra.mode=RUN", "seed=0", "data.category=nut"]).cfg, ())
print(json.dumps(anomaly_lab.__file__))
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


def test_every_file_of_the_checkout_is_in_the_wheel_and_no_other(installed):
    tracked = ["git", "ls-files", "anomaly_lab", "conf", "experiments"]
    listed = subprocess.run(tracked, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split()
    wanted = {name if name.startswith("anomaly_lab/") else f"anomaly_lab/{name}" for name in listed}
    package = installed / "anomaly_lab"
    files = (file for file in package.rglob("*") if file.is_file() and file.suffix != ".pyc")
    assert {file.relative_to(installed).as_posix() for file in files} == wanted


def test_away_from_the_checkout_a_recipe_and_an_experiment_compose(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(CHECKOUT)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)).is_relative_to(installed)
