"""What the jobs of a sweep have in common, by which a dashboard groups them."""

import time

import pytest

from anomaly_lab import train
from tests.support import forking
from tests.sweeps.sweeping import runs, sweep  # noqa: F401 - fixtures

pytestmark = pytest.mark.long


@pytest.mark.parametrize("words", [(), ("launcher",)])
@pytest.mark.parametrize(("tag", "group"), [((), None), (("tag=july",), "july")])
def test_all_jobs_of_a_sweep_have_its_time_or_its_tag(sweep, runs, monkeypatch, tmp_path, words, tag, group):  # noqa: F811
    def slow(asked):
        time.sleep(0.6 * asked.cfg.seed)  # the time has seconds
        with (tmp_path / "groups").open("a") as file:
            file.write(f"{asked.group}\n")
        runs(asked)

    monkeypatch.setattr(train, "run", slow)
    given = [forking.register() for _ in words]
    assert sweep(*given, *tag, "seed=1,2") == 0
    found = (tmp_path / "groups").read_text().splitlines()
    assert len(found) == 2
    (folder,) = (tmp_path / "work" / "runs" / ".sweeps").iterdir()
    assert set(found) == {group or folder.name}
