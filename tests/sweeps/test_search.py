"""A search by Optuna: on synthesised defects alone, unless asked for; the runs that are there count."""

import pytest

from anomaly_lab.errors import DataError
from tests.sweeps.sweeping import directories, runs, sweep  # noqa: F401 - fixtures

pytestmark = pytest.mark.long
SEARCH = ["hydra/sweeper=optuna", "hydra.sweeper.trials=12", "data=synthetic_defects", "seed=0"]
SIZES = "data.batch_size=range(1,40)"


def hill(cfg):
    """Best at a batch of 20."""
    return {"pixel_ap": 1 - abs(cfg.data.batch_size - 20) / 40, "image_auroc": 0.5}


def test_a_search_tries_values_says_the_best_and_goes_on_where_it_was(sweep, runs, capsys, tmp_path):  # noqa: F811
    runs.metrics = hill
    assert sweep(*SEARCH, SIZES) == 0
    said = capsys.readouterr().out
    tried = [hill_size(path) for path in directories(tmp_path / "work")]
    best = min(tried, key=lambda size: abs(size - 20))
    assert f"best pixel_ap, on synthesised defects: {1 - abs(best - 20) / 40:.4f} with\n" in said
    assert f"  data.batch_size={best}\n" in said
    assert abs(best - 20) <= 5  # by chance alone twelve of 39 miss by more in a fourteenth of all cases
    once = list(runs)
    assert sweep(*SEARCH, SIZES) == 0
    assert list(runs) == once
    assert sweep(*SEARCH[:1], "hydra.sweeper.trials=14", *SEARCH[2:], SIZES) == 0
    assert len(runs) <= len(once) + 2


def hill_size(path):
    return int(
        next(word for word in (path / "overrides.txt").read_text().split() if "batch_size" in word)[16:]
    )


def test_kinds_of_values_are_drawn_as_they_are_given(sweep, runs):  # noqa: F811
    seen = []
    runs.metrics = lambda cfg: seen.append((cfg.data.sampling, cfg.data.white, cfg.data.holdout)) or hill(cfg)
    white = "data.white=tag(log,int(interval(1,9)))"
    drawn = ["data.sampling=shuffle,replacement", white, "data.holdout=interval(0.1,0.2)"]
    assert sweep(*SEARCH, *drawn) == 0
    assert {kind for kind, _, _ in seen} == {"shuffle", "replacement"}
    assert all(type(white) is int and 1 <= white <= 9 for _, white, _ in seen)
    assert all(0.1 <= share <= 0.2 for *_, share in seen)
    assert len({share for *_, share in seen}) == 12


def test_real_test_labels_choose_nothing_unless_asked_for_and_then_the_runs_say_so(
    sweep,  # noqa: F811
    runs,  # noqa: F811
    capsys,
    tmp_path,
):
    runs.metrics = hill
    real = [SEARCH[0], "hydra.sweeper.trials=2", "seed=0", SIZES]
    assert sweep(*real) == 1
    assert (
        "pixel_ap of data=mvtec would choose by the labels of its test set; give " in capsys.readouterr().err
    )
    assert runs == []
    assert sweep(*real, "hydra.sweeper.oracle=true", "tag=mine") == 0
    assert "on real test labels: an oracle's choice" in capsys.readouterr().out
    assert {path.name.rpartition("-seed")[0][:11] for path in directories(tmp_path / "work")} == {
        "oracle-mine"
    }


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["seed=0,1", SIZES], "seed: give a search one; of several it would take the easiest"),
        (["data.category=part,other", SIZES], "data.category: give a search one"),
        (["++seed=0,1", SIZES], "seed: give a search one"),
        (["tag=a,b", SIZES], "tag: give a search one"),
        (["evaluation.fpr_limit=0.1,0.3", SIZES], "evaluation.fpr_limit: give a search one"),
        (["data.category=all", SIZES], "data.category: give a search one category, not all"),
        (["data.image_size=64,96"], "data.image_size: masks of several sizes do not compare"),
        (["data.batch_size=tag(log,range(1,9))"], "a range has no logarithmic scale"),
        ([], "give a key several values to choose from"),
        (
            [SIZES, "hydra.sweeper.objective=image_aurc"],
            "objective: image_aurc is none; did you mean image_auroc?",
        ),
        ([SIZES, "hydra.sweeper.trials=0"], "hydra.sweeper.trials=0, at_once=1: give at least 1"),
    ],
)
def test_what_cannot_be_searched_is_one_line(sweep, runs, capsys, words, line):  # noqa: F811
    given = [word for word in SEARCH if word.partition("=")[0] not in {w.partition("=")[0] for w in words}]
    assert sweep(*given, *words) == 1
    assert line in capsys.readouterr().err
    assert runs == []


def test_a_trial_that_fails_is_told_and_the_search_goes_on(sweep, runs, capsys, monkeypatch):  # noqa: F811
    def fails(cfg):
        if cfg.data.batch_size % 2:
            raise DataError("odd")
        return hill(cfg)

    runs.metrics = fails
    assert sweep(*SEARCH, "data.batch_size=1,2", "hydra.sweeper.at_once=2") == 1
    said = capsys.readouterr()
    assert "data.batch_size=2" in said.out.rpartition("best pixel_ap")[2]
    assert "1 of 2 runs failed" in said.err


def test_a_method_without_the_objective_is_told_so(sweep, runs, capsys):  # noqa: F811
    assert sweep(*SEARCH, SIZES) == 1
    assert "has no pixel_ap; give another hydra.sweeper.objective" in capsys.readouterr().err
    assert len(runs) == 1
