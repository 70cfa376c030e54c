"""Tables as Markdown, csv and LaTeX, ours beside what papers print."""

import csv
import io

import pytest

from anomaly_lab.evaluation.definitions import VERSIONS
from anomaly_lab.methods.vt_adl.method import VtAdl
from anomaly_lab.report.beside import Papers
from anomaly_lab.report.columns import Column
from anomaly_lab.report.found import found
from anomaly_lab.report.tables import SEVEN, made_of, tables
from anomaly_lab.report.texts import HEADER, as_csv, latex, markdown, otherwise, outdated_in
from anomaly_lab.runs.papers import paper_tables
from tests.report.folders import kept

NONE = Papers([])
PAPERS = Papers(paper_tables())
ALL = {cell.category for cell in next(t for t in paper_tables() if t.name == "prff_table3").cells}
ITERATIONS = "model.progressive.iterations"


def made(root, *metrics):
    return tables(found(root).runs, metrics or ["image_auroc"])


def test_a_cell_says_mean_spread_seeds_and_what_is_not_done(tmp_path):
    kept(tmp_path, "padim/own/a", 0, image_auroc=0.98)
    kept(tmp_path, "padim/own/a", 1, image_auroc=0.99)
    kept(tmp_path, "padim/own/a", 2, status="failed")
    kept(tmp_path, "padim/own/b", 0, image_auroc=1.0)
    kept(tmp_path, "nearest/own/b", 0, status="running")
    kept(tmp_path, "variation/own/a", 0, status="failed")
    (table,) = made(tmp_path)
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in markdown(table, NONE).splitlines()
    ]
    assert lines[0] == ["### own, image_auroc"]
    assert lines[2] == ["category", "nearest", "padim", "variation"]
    assert lines[4:6] == [
        ["a", "-", "0.985 ± 0.007 (2) 1 failed", "1 failed"],
        ["b", "1 unfinished", "1.000 (1)", "-"],
    ]
    assert len(lines) == 6


def test_the_papers_number_stands_beside_ours_with_its_digits(tmp_path):
    """DRAEM's own table is asked before one that quotes it; a reduced recipe has the same number."""
    kept(tmp_path, "draem_small/mvtec/carpet", image_auroc=0.9)
    kept(tmp_path, "nearest/mvtec/carpet", image_auroc=0.9)
    (table,) = made(tmp_path)
    found_there = PAPERS.beside("mvtec", ["carpet"], Column("draem_small", (), ""), "image_auroc")
    assert (found_there.value, found_there.table.paper.name) == (0.970, "draem")
    text = markdown(table, PAPERS)
    assert "| carpet   | 0.900 (1)             | 0.970 (-0.070) | 0.900 (1) |" in text
    assert "| draem_small (reduced) |" in text
    assert " & draem\\_small (reduced) & printed & nearest" in latex(table, PAPERS)
    stamps = {row["model"]: row["stamp"] for row in csv.DictReader(io.StringIO(as_csv([table], PAPERS)))}
    assert stamps == {"draem_small": "reduced", "nearest": ""}


def test_a_mean_is_compared_with_a_mean_over_the_same_categories_alone(tmp_path):
    column = Column("prff", (), "")
    assert PAPERS.beside("mvtec", ["bottle", "tile"], column, "image_auroc") is None
    assert PAPERS.beside("mvtec", ALL, column, "image_auroc").value == 0.991
    for category in ("bottle", "tile"):
        kept(tmp_path, f"prff/mvtec/{category}", image_auroc=0.9)
    lines = markdown(*made(tmp_path), PAPERS).splitlines()
    assert [cell.strip() for cell in lines[-1].split("|")[1:-1]] == ["(mean)", "0.900 (1)", ""]


def test_a_number_stands_beside_the_configuration_that_it_was_printed_for():
    def printed(over, settings=(), differs=(), model="prff"):
        found = PAPERS.beside("mvtec", over, Column(model, settings, "", differs), "image_auroc")
        return found and found.value

    one, two = ((ITERATIONS, "1"),), ((ITERATIONS, "2"),)
    assert printed(ALL, one, one) == 0.989
    assert printed(ALL, (), one) == 0.989  # all runs have it
    assert printed(ALL, two) == 0.991  # the recipe's own value
    assert printed(["bottle"], two) == printed(["bottle"]) == 0.998
    assert printed(["bottle"], one, one) is None
    assert printed(["bottle"], (), (("trainer.max_steps", "2"),)) is None
    assert printed(ALL, (), ((ITERATIONS, "7"),)) is None
    assert printed(["bottle"], model="nearest_full") == printed(["bottle"], model="nearest") == 0.8102
    user = PAPERS.beside("mvtec", ["hazelnut"], Column("vt_adl", (), ""), "image_auroc")
    assert user is None  # what a user of the code reports


def test_the_csv_has_a_line_a_cell_with_all_digits_and_no_formula(tmp_path):
    kept(tmp_path, "draem/mvtec/carpet", 0, image_auroc=2 / 3)
    kept(tmp_path, "draem/mvtec/carpet", 1, image_auroc=1 / 3)
    kept(tmp_path, "draem/mvtec/=wood", 1, image_auroc=0.5)
    rows = list(csv.DictReader(io.StringIO(as_csv(made(tmp_path), PAPERS))))
    assert tuple(rows[0]) == HEADER
    assert [row["category"] for row in rows] == ["'=wood", "carpet"]
    assert float(rows[1]["mean"]) == pytest.approx(0.5)
    assert float(rows[1]["sd"]) == pytest.approx(0.23570226)
    assert (rows[1]["n"], rows[1]["printed"], rows[1]["table"]) == ("2", "0.97", "draem_table1")
    assert float(rows[1]["difference"]) == pytest.approx(-0.47)
    assert rows[0]["printed"] == ""


def test_the_csv_says_why_a_cell_has_no_number(tmp_path):
    kept(tmp_path, "padim/own/done", image_auroc=0.5)
    kept(tmp_path, "padim/own/part", 0, image_auroc=0.5)
    kept(tmp_path, "padim/own/part", 1, status="failed")
    kept(tmp_path, "padim/own/none", 1, status="running")
    kept(tmp_path, "padim/own/other", 1, pixel_ap=0.5)
    for seed in (0, 1):
        kept(tmp_path, "padim/own/mixed", seed, manifest={"data_content": str(seed)}, image_auroc=0.5)
    rows = csv.DictReader(io.StringIO(as_csv(made(tmp_path), NONE)))
    assert {row["category"]: (row["state"], row["mean"]) for row in rows} == {
        "done": ("done", "0.5"),
        "part": ("partly done", "0.5"),
        "none": ("not done", ""),
        "other": ("without this metric", ""),
        "mixed": ("of different data", ""),
    }


def test_the_csv_counts_the_doubts_of_the_runs_that_a_cell_is_of(tmp_path):
    for category, counts in (("a", (2, 0)), ("b", (1, 3))):
        for seed, count in enumerate(counts):
            facts = {"doubts": [f"{number}" for number in range(count)]}
            kept(tmp_path, f"padim/own/{category}", seed, manifest=facts, started="2", image_auroc=0.5)
    again = {"doubts": ["gone"] * 5}
    kept(tmp_path, "padim/own/a", 0, manifest=again, started="1", image_auroc=0.5)  # begun before
    kept(tmp_path, "padim/own/a", 1, status="failed", started="3", manifest=again)
    rows = csv.DictReader(io.StringIO(as_csv(made(tmp_path), NONE)))
    assert {row["category"]: row["doubts"] for row in rows} == {"a": "2", "b": "4", "(mean)": "6"}


def test_a_cell_without_a_number_has_its_doubts_counted(tmp_path):
    for seed in (0, 1):
        facts = {"data_content": str(seed), "doubts": ["of other data"]}
        kept(tmp_path, "padim/own/a", seed, manifest=facts, image_auroc=0.5)
    (row,) = csv.DictReader(io.StringIO(as_csv(made(tmp_path), NONE)))
    assert (row["state"], row["doubts"]) == ("of different data", "2")


def test_what_a_metric_is_made_of_says_by_which_definition_it_is(tmp_path, monkeypatch):
    """Of image AUROC's are mad and the mean over copies; what was noted of the copies comes first.

    What the copies are is a definition of its own.
    """
    values = dict.fromkeys(SEVEN, 0.5) | {"poisoned_image_auroc": 0.4, "image_auroc_low": 0.3}
    kept(tmp_path, "padim/own/a", **values)
    kept(tmp_path, "mlff/own/a", manifest={"metric_versions": {"image_auroc": 2, "poison": 2}}, **values)
    versions = {"image_auroc": 2, "poisoned_image_auroc": 1, "poison": 2}
    kept(tmp_path, "nearest/own/a", manifest={"metric_versions": versions}, **values)
    versions = {"image_auroc": 2, "poison": 1}
    kept(tmp_path, "patchcore/own/a", manifest={"metric_versions": versions}, **values)
    names = ("image_auroc", "mad", "poisoned_image_auroc", "image_auroc_low", "pixel_ap")
    monkeypatch.setitem(VERSIONS, "image_auroc", 2)
    tables_made = made(tmp_path, *names)
    old = {
        (table.metric, column.model)
        for table in tables_made
        for (_, column), cell in table.cells.items()
        if cell.outdated
    }
    copies = {("poisoned_image_auroc", "nearest"), ("poisoned_image_auroc", "patchcore")}
    assert old == {*((name, "padim") for name in names[:-1]), *copies}
    by = "by definition 1, which is now 2;"
    lines = [line.rpartition(by)[0] + by for line in outdated_in(tables_made)]
    assert lines == [
        f"image_auroc: {by}",
        f"image_auroc_low: made of image_auroc {by}",
        f"mad: made of image_auroc {by}",
        f"poisoned_image_auroc: made of image_auroc {by}",
        f"poisoned_image_auroc: made of poison {by}",
    ]


def test_a_papers_name_for_one_of_our_metrics_is_of_that_one():
    assert {name: (ours,) for name, ours in VtAdl.printed.items()} == {
        name: made_of(name) for name in VtAdl.printed
    }


def test_no_printed_number_or_curve_stands_beside_an_oracle():
    fair, oracle = (Column("draem", (), tag) for tag in ("run", "oracle-run"))
    assert PAPERS.beside("mvtec", ["carpet"], fair, "image_auroc").value == 0.97
    assert PAPERS.beside("mvtec", ["carpet"], oracle, "image_auroc") is None
    columns = [Column("prff", ((ITERATIONS, n),), "oracle-run", ((ITERATIONS, n),)) for n in "12"]
    assert PAPERS.curve("mvtec", ALL, columns, "image_auroc", ITERATIONS) is None


def test_a_name_breaks_no_table(tmp_path):
    kept(tmp_path, "padim/own/a|b", image_auroc=0.5)
    kept(tmp_path, "padim/own/c\nd", image_auroc=0.5)
    lines = markdown(*made(tmp_path), NONE).splitlines()
    assert [line.split(" | ")[0] for line in lines[4:6]] == [r"| a\|b    ", "| c d     "]


def test_latex_escapes_its_signs(tmp_path):
    kept(tmp_path, "deep_knn/own/a_b&c", 0, differs={"model.x": r"\input{a~b^c}"}, image_auroc=0.5)
    kept(tmp_path, "deep_knn/own/a_b&c", 1, image_auroc=0.5, config={"model": {"x": "\x1b[31m\nred"}})
    text = latex(*made(tmp_path), NONE).splitlines()
    assert text[1:3] + text[4:5] + text[6:7] + text[8:] == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert r"& x=\textbackslash{}input\{a\textasciitilde{}b\textasciicircum{}c\}" in text[3]
    assert r"& x=?[31m red" in text[3]
    assert text[7] == r"\multicolumn{3}{l}{\footnotesize deep\_knn; x is model.x} \\"
    assert text[5].startswith(r"a\_b\&c & ")


FAITHFUL = {"synthesis.textures": "/data/dtd/images", "trainer.precision": "bf16-mixed"}


def test_a_full_run_on_a_gpu_has_its_printed_number_marked_and_the_keys_named_in_every_format(tmp_path):
    """A recipe's textures are a folder that each user names, so a faithful run always differs in it."""
    kept(
        tmp_path,
        "draem/mvtec/carpet",
        differs={**FAITHFUL, "trainer.deterministic": "none", "evaluation.save_maps": True},
        image_auroc=0.96,
    )
    kept(tmp_path, "padim/mvtec/carpet", image_auroc=0.9)
    found_there = made(tmp_path)
    assert "| 0.970† (-0.010) |" in markdown(*found_there, PAPERS)
    (row, other) = csv.DictReader(io.StringIO(as_csv(found_there, PAPERS)))
    said = "synthesis.textures=/data/dtd/images trainer.deterministic=none trainer.precision=bf16-mixed"
    assert (row["printed"], row["despite"]) == ("0.97", said)
    assert (other["model"], other["despite"]) == ("padim", "")
    text = latex(*found_there, PAPERS)
    assert r" & 0.970$^\dagger$ (-0.010) & " in text
    note = r"\multicolumn{5}{l}{\footnotesize $^\dagger$ draem: synthesis.textures=/data/dtd/images, "
    assert [line for line in text.splitlines() if line.startswith(note)]
    assert text.index(note) < text.index(r"\end{tabular}")
    assert otherwise(found_there, PAPERS) == [f"draem: {said.replace(' ', ', ')}"]


@pytest.mark.parametrize(
    ("differs", "value"),
    [
        ({"trainer.tf32": True, "trainer.compile": True}, 0.97),
        ({"evaluation.overlays": 0, "evaluation.bootstrap": 0}, 0.97),
        ({"trainer.max_epochs": 2, "trainer.precision": "bf16-mixed"}, None),
        ({"evaluation.resolution": "original"}, None),
        ({"synthesis.num_procedural": 3}, None),
    ],
)
def test_what_changes_the_method_hides_the_printed_number_and_how_it_ran_does_not(tmp_path, differs, value):
    kept(tmp_path, "draem/mvtec/carpet", differs=differs, image_auroc=0.96)
    (row,) = csv.DictReader(io.StringIO(as_csv(made(tmp_path), PAPERS)))
    assert row["printed"] == ("" if value is None else str(value))


def test_a_key_that_a_table_varies_is_no_mark(tmp_path):
    printed = PAPERS.beside(
        "mvtec", ALL, Column("prff", (), "", ((ITERATIONS, "1"), ("trainer.tf32", "true"))), "image_auroc"
    )
    assert (printed.value, printed.despite) == (0.989, (("trainer.tf32", "true"),))
