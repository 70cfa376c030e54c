"""Several dashboards at once: opened together, closed with the outcome, and never what a run fails of."""

import json
import logging
from pathlib import Path

import pytest

from anomaly_lab.errors import BusyError, RunError
from anomaly_lab.runs.directory import RunDirectory
from anomaly_lab.runs.lock import locked
from anomaly_lab.training.loggers.base import Board, Mirror
from tests.support.boards import ADVICE, METRICS, SIZES, STEPS, Line, chosen, drawn, job, mirrors_of

pytestmark = [pytest.mark.filterwarnings(f"ignore:{advice}") for advice in ADVICE]


class Book(Mirror):
    """Writes down what it is told; it raises where it is told to."""

    def __init__(self, *raises: str) -> None:
        self.raises, self.told = raises, []

    def tell(self, what: str, *said: object) -> None:
        self.told.append((what, *said))
        if what in self.raises:
            raise RunError(f"no {what}\nand more")

    def opened(self, facts, earlier):
        self.facts = facts
        self.tell("open", earlier)
        return Page(self)


class Page(Board):
    def __init__(self, book: Book) -> None:
        self.book = book

    known_as = "page7"

    def scalars(self, values, step):
        self.book.tell("scalars", step)

    def result(self, result):
        self.result_told = result
        self.book.tell("result", dict(result.metrics), result.step, list(result.pictures))

    def close(self, *, failed):
        self.book.tell("close", failed)


def known(path: Path) -> dict:
    return json.loads((path / "dashboards.json").read_text())


def warned(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_all_mirrors_get_the_same(tmp_path):
    first, second, pictures = Book(), Book(), drawn(tmp_path)
    job(mirrors_of(tmp_path, group="g", a=first, csv=chosen("csv"), b=second), Line(), METRICS, pictures)
    points = [("scalars", step) for step in range(STEPS)]
    assert first.told == [("open", ""), *points, ("result", METRICS, STEPS, pictures), ("close", False)]
    assert second.told == first.told
    facts = first.facts
    assert (facts.path, facts.group, (facts.total, facts.trainable)) == (tmp_path, "g", SIZES)
    assert known(tmp_path) == {name: {"known_as": "page7", "open": False} for name in "ab"}


def test_csv_opens_nothing(tmp_path):
    with mirrors_of(tmp_path, csv=chosen("csv")).opened(SIZES) as loggers:
        assert list(loggers) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("raises", "line"),
    [
        ("scalars", "logger=a shows no more of this run (RunError: no scalars); it goes on"),
        ("result", "logger=a shows no more of this run (RunError: no result); it goes on"),
        ("close", "logger=a did not finish (RunError: no close); the run directory has everything"),
    ],
)
def test_what_fails_once_open_is_one_warning_and_the_others_go_on(tmp_path, caplog, raises, line):
    bad, good, module = Book(raises), Book(), Line()
    job(mirrors_of(tmp_path, a=bad, b=good), module, METRICS)
    assert warned(caplog) == [line]
    assert len(module.losses) == STEPS
    assert [told[0] for told in good.told] == ["open", *["scalars"] * STEPS, "result", "close"]
    assert [told[0] for told in bad.told].count(raises) == 1
    assert bad.told[-1] == ("close", False)
    assert known(tmp_path)["a"]["open"] is (raises == "close")


def test_one_that_does_not_open_ends_the_run_and_marks_the_others_as_failed(tmp_path):
    good, bad = Book(), Book("open")
    with pytest.raises(RunError, match=r"^no open"), mirrors_of(tmp_path, a=good, b=bad).opened(SIZES):
        raise AssertionError
    assert good.told == [("open", ""), ("close", True)]
    assert known(tmp_path) == {"a": {"known_as": "page7", "open": False}}


def left_open(path: Path) -> None:
    RunDirectory(path).write_json("dashboards.json", {"a": {"known_as": "page3", "open": True}})


def test_a_run_taken_up_again_goes_on_under_its_name(tmp_path):
    left_open(tmp_path)
    book = Book()
    job(mirrors_of(tmp_path, a=book, b=Book()), Line(), METRICS)
    assert (book.told[0], book.told[-1]) == (("open", "page3"), ("close", False))


EARLY = RunError("no data")


def fails(mirrors, error: BaseException = EARLY) -> None:
    with pytest.raises(type(error)), mirrors.failing_early():
        raise error


def test_what_was_left_open_is_marked_as_failed_by_a_start_that_fails_before_it_opens(tmp_path):
    left_open(tmp_path)
    left, other = Book(), Book()
    fails(mirrors_of(tmp_path, a=left, b=other))
    assert (left.told, other.told) == ([("open", "page3"), ("close", True)], [])
    assert known(tmp_path) == {"a": {"known_as": "page7", "open": False}}
    fails(mirrors_of(tmp_path, a=left))  # it is closed now
    assert len(left.told) == 2


@pytest.mark.parametrize("error", [BusyError("works on it"), KeyboardInterrupt()])
def test_a_start_that_another_process_or_a_user_ends_marks_nothing(tmp_path, error):
    left_open(tmp_path)
    book = Book()
    fails(mirrors_of(tmp_path, a=book), error)
    assert book.told == []


def test_a_run_that_another_process_works_on_is_not_marked(tmp_path):
    left_open(tmp_path)
    book = Book()
    with locked(tmp_path):
        fails(mirrors_of(tmp_path, a=book))
    assert book.told == []


def test_a_failure_of_the_run_itself_is_marked_once(tmp_path):
    book = Book()
    mirrors = mirrors_of(tmp_path, a=book)
    with pytest.raises(ZeroDivisionError), mirrors.failing_early():
        job(mirrors, Line(breaks_at=0), METRICS)
    assert book.told == [("open", ""), ("close", True)]


@pytest.mark.parametrize("start", ["{", "[]", '{"a": 3}', '{"a": {"open": true}}'])
def test_a_damaged_note_costs_the_name_alone(tmp_path, start):
    (tmp_path / "dashboards.json").write_text(start)
    book = Book()
    fails(mirrors_of(tmp_path, a=book))
    job(mirrors_of(tmp_path, a=book), Line(), METRICS)
    assert {told[1] for told in book.told if told[0] == "open"} == {""}
    assert known(tmp_path) == {"a": {"known_as": "page7", "open": False}}


def test_a_note_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "dashboards.json").mkdir()
    job(mirrors_of(tmp_path, a=Book()), Line(), METRICS)
    assert all(line.startswith(f"{tmp_path}/dashboards.json: cannot be written") for line in warned(caplog))
    assert len(warned(caplog)) == 2
