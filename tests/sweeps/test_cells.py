"""The plan of a sweep, against Hydra composing every cell whole."""

from itertools import product

import pytest
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_class
from omegaconf import open_dict

from anomaly_lab.config.checked import Checked
from anomaly_lab.config.composing import _hydra, composed
from anomaly_lab.errors import ConfigError
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.sweeps import plan
from anomaly_lab.sweeps.axes import given
from anomaly_lab.sweeps.plan import planned
from tests.support.runs import options

GROUPS = {"model", "data", "synthesis", "trainer", "logger"}
CATEGORY = ["data=mvtec", "data.category=x"]
SWEEPS = [
    ["model=nearest,variation", "seed=0,1,2"],
    ["model=deep_knn_small", "model.estimator.neighbors=1,5,9", "data.image_size=64,[64,96]", "seed=3,4"],
    ["model=draem_small", "synthesis=none,cutpaste", "trainer=default,cpu", "data.holdout=0.1,0.2"],
    [
        "model=prff_small",
        "model.progressive.iterations=range(1,4)",
        "evaluation.fpr_limit=0.3,0.05",
        "tag=a,b",
    ],
    ["model=padim_small", "data.crop=null,[0,0,0.5,0.5]", "+cache.x=1,2", "data.augment=null"],
    ["model=nearest", "runs=here,there", "data.category=a,b", "data.seed=5,6", "retry=failed"],
]


def plans(words: list[str]) -> list[plan.SweepCell]:
    def whole(overrides: list[str]):
        with _hydra(None):
            return compose("config", overrides, return_hydra_config=True)

    overrides = given(None, words, None)
    return planned(whole, lambda one: one.key_or_group in GROUPS, overrides, words)


def whole(words: list[str]) -> RunDirectory:
    asked = composed(words)
    checked = Checked.of(asked.cfg, ())
    return RunDirectory.of(asked.folder, asked.cfg.tag, checked.config_hash, asked.cfg.seed)


@pytest.mark.long
@pytest.mark.parametrize("words", SWEEPS)
def test_a_cell_has_the_run_directory_of_its_config_composed_whole(words):
    words = [*CATEGORY, *words]
    if any(word.startswith("+cache.x") for word in words):
        with pytest.raises(ConfigError, match=r"cache\.x is no key"):
            plans(words)
        words.remove("+cache.x=1,2")
    cells = plans(words)
    axes = [plan.axis_of(one).words for one in OverridesParser.create().parse_overrides(words)]
    last = {word.partition("=")[0]: values for word, values in zip(words, axes, strict=True)}
    assert len(cells) == len(list(product(*last.values())))
    for cell in cells:
        assert cell.directory.path == whole(cell.overrides).path, cell.overrides
    assert len({cell.directory.path for cell in cells}) == len(cells) or "trainer=default,cpu" in words


def test_values_that_change_one_entry_together_are_checked_as_they_stand(monkeypatch):
    """Two keys that a third one is made of: what one of them changes depends on the other."""
    family = plan.Family.__new__(plan.Family)
    cfg = composed([*CATEGORY, "model=nearest"]).cfg
    with open_dict(cfg):
        cfg.tag = "${seed}-${data.batch_size}"
    family.cfg = cfg
    family.words = []
    family.typed = []
    family.choices = {"model": "nearest", "data": "mvtec"}
    family.parser = OverridesParser.create()
    axes = [
        plan.Axis("seed", ["seed=1", "seed=2"]),
        plan.Axis("x", ["data.batch_size=3", "data.batch_size=4"]),
    ]
    names = [cell.directory.path.name for cell in plan._cells(family, axes)]
    assert [name.partition("-")[2][:1] for name in names] == ["3", "4", "3", "4"]
    assert [name[0] for name in names] == ["1", "1", "2", "2"]


def test_each_value_is_checked_once_and_not_each_combination(monkeypatch):
    seen = []
    facts = plan.Family.facts
    monkeypatch.setattr(plan.Family, "facts", lambda self, words: (seen.append(words), facts(self, words))[1])
    cells = plans([*CATEGORY, "model=nearest", "seed=range(0,20)", "data.batch_size=range(1,21)"])
    assert len(cells) == 400
    assert len({cell.directory.path for cell in cells}) == 400
    assert len(seen) == 1 + 19 + 19


def test_an_interval_is_for_a_search():
    with pytest.raises(ConfigError, match=r"a grid takes single values, as data\.holdout=1,2,3"):
        plans([*CATEGORY, "data.holdout=interval(0,1)"])


def test_every_data_set_lists_its_categories():
    for name in options("data"):
        data = composed([f"data={name}", "data.category=x", "data.root=x"]).cfg.data
        assert callable(get_class(data._target_).categories)
