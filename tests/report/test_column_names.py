"""Names of columns, short for people: floats of a few digits, last names of keys, and never two alike."""

import re

import pytest

from anomaly_lab.report.ablations import ablations
from anomaly_lab.report.beside import Papers
from anomaly_lab.report.columns import Column
from anomaly_lab.report.compared import compared
from anomaly_lab.report.found import found
from anomaly_lab.report.names import brief, headings, named, title
from anomaly_lab.report.records import table_of_runs
from anomaly_lab.report.remarks import on_runs
from anomaly_lab.report.summary import heading, tabled
from anomaly_lab.report.tables import Table, tables
from anomaly_lab.report.texts import as_csv, grid, latex, markdown
from anomaly_lab.report.values import brief_keys, brief_values
from tests.report.folders import kept

NONE = Papers([])
SIGMAS = (4.841694527491273, 7.745639323507205)


def made(root):
    return tables(found(root).runs, ["image_auroc"])


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (["4.841694527491273", "7.850328395629348"], ["4.842", "7.85"]),
        (["0.10", "1e-05", "3", "100000", "true"], ["0.10", "1e-05", "3", "100000", "true"]),
        (["1.23456e-05", "0.30000000000000004"], ["1.235e-05", "0.3"]),
        (["4.841694527491273", "4.841694527491274"], ["4.841694527491273", "4.841694527491274"]),
        (["4.84169", "4.842"], ["4.8417", "4.842"]),
        (["4.0000001", "4"], ["4.0000001", "4"]),
        (["0.30000000000000004", "0.30", "0.3"], ["0.30000000000000004", "0.30", "0.3"]),
        (["[0.123456,[2,0.98765432]]"], ["[0.1235,[2,0.9877]]"]),
        (["v1.23456", "/data/1.23456", "1.2.34567", "nan", "1" * 400 + ".5"], None),
    ],
)
def test_a_float_has_four_digits_and_more_where_two_would_be_alike(values, shown):
    assert [brief_values(values)[value] for value in values] == (shown or values)


def test_a_key_has_its_last_name_where_no_other_ends_alike():
    assert brief_keys(["model.sigma", "model.a.width", "model.b.width", "tags"]) == {
        "model.sigma": "sigma",
        "model.a.width": "model.a.width",
        "model.b.width": "model.b.width",
        "tags": "tags",
    }


@pytest.mark.parametrize("sigmas", [SIGMAS, (4.841694527491273, 4.841694527491274), (2.00001, 2.0)])
def test_columns_of_a_search_are_short_and_never_alike_in_any_place(tmp_path, sigmas):
    for sigma in sigmas:
        for category in ("a", "b"):
            place = f"padim/own/{category}"
            kept(tmp_path, place, differs={"model.sigma": sigma}, image_auroc=sigma / 10)
    (table,) = made(tmp_path)
    assert len(table.columns) == 2
    longest = 25 if sigmas == SIGMAS else 40
    ways = [named, brief, lambda column: re.sub("<.*?>", " ", "".join(heading(column)))]
    for names in [headings(table), *([way(column) for column in table.columns] for way in ways)]:
        assert len(set(names)) == 2
        assert max(map(len, names)) <= longest, names
    if sigmas == SIGMAS:
        texts = [markdown(table, NONE), latex(table, NONE), *compared([table])]
        texts += [table_of_runs(found(tmp_path).runs, ["image_auroc"], "x")]
        assert [text for text in texts if "4.8416" in text] == []
        assert all("sigma=4.842" in text for text in texts[:2] + texts[-1:])
    shown = "".join(tabled(table, NONE))
    assert f'title="model.sigma={sigmas[0]}"' in shown  # the whole value, for whoever points at it
    assert f"model.sigma={sigmas[0]}" in as_csv([table], NONE)


def test_two_columns_whose_keys_end_alike_are_told_apart_though_one_value_is_the_recipes(tmp_path):
    for key in ("model.a.width", "model.b.width"):
        kept(tmp_path, "padim/own/a", differs={key: 3}, image_auroc=0.5)
    columns = made(tmp_path)[0].columns
    assert len({brief(column) for column in columns}) == 2
    assert len({"".join(re.findall(">([^<]+)<", "".join(heading(column)))) for column in columns}) == 2


def test_lines_and_legends_and_shared_settings_have_few_digits(tmp_path):
    for sigma in SIGMAS:
        for n in (1, 2):
            differs = {"model.sigma": sigma, "model.n": n, "model.rate": 0.123456789}
            kept(tmp_path, "padim/own/a", differs=differs, image_auroc=0.5)
    made_of_them = made(tmp_path)
    lines = {line.others for one in ablations(made_of_them, NONE) for line in one.lines}
    assert lines == {"model.n=1", "model.n=2", "model.sigma=4.842", "model.sigma=7.746"}
    said = "padim: model.rate=0.1235 in all its runs, which its recipe has not"
    assert said in list(on_runs(found(tmp_path), made_of_them))


def test_a_table_of_one_method_has_it_in_its_name_and_the_key_once(tmp_path):
    for n in (1, 2):
        differs = {"model.progressive.iterations": n}
        kept(tmp_path, "prff_small/own/bottle", differs=differs, image_auroc=0.5)
    (table,) = made(tmp_path)
    lines = markdown(table, NONE).splitlines()
    name = "own, image_auroc: prff_small (reduced); iterations is model.progressive.iterations"
    assert lines[0] == f"### {name}"
    assert lines[2] == "| category | iterations=1 | iterations=2 |"
    assert title(table) == name
    text = latex(table, NONE).splitlines()
    assert text[0] == f"% {name}"
    assert text[3] == r"category & iterations=1 & iterations=2 \\"
    assert text[-2] == (
        r"\multicolumn{3}{l}{\footnotesize prff\_small (reduced); "
        r"iterations is model.progressive.iterations} \\"
    )


def test_a_table_of_several_methods_names_them_and_tells_a_key_once(tmp_path):
    for n in (1, 2):
        kept(tmp_path, "prff/own/a", differs={"model.x.n": n}, tag="first", image_auroc=0.5)
    kept(tmp_path, "mlff_small/own/a", tag="first", image_auroc=0.5)
    kept(tmp_path, "mlff_small/own/a", tag="oracle", image_auroc=0.5)
    (table,) = made(tmp_path)
    assert grid(table, NONE)[0][1:] == [
        "mlff_small tag=first (reduced)",
        "mlff_small tag=oracle (reduced)",
        "prff n=1 tag=first",
        "prff n=2 tag=first",
    ]
    assert title(table) == "own, image_auroc: n is model.x.n"


def test_one_column_alone_keeps_its_method():
    table = table_of([Column("padim", (), "")])
    assert headings(table) == ["padim"]
    assert title(table) == "own, image_auroc"
    assert headings(table_of([Column("padim", (), "a"), Column("padim", (), "b")])) == ["tag=a", "tag=b"]


def table_of(columns):
    return Table("own", "image_auroc", ["a"], columns, {}, {})


def test_names_in_the_plot_of_ranks_are_cut_so_that_they_differ(tmp_path):
    for n in (10, 20, 30):
        for category in ("a", "b"):
            differs = {"model.number_of_all_channels": n}
            kept(tmp_path, f"patchcore_small/own/{category}", differs=differs, image_auroc=n / 100)
    svg = re.search(r"<svg.*</svg>", "".join(compared(made(tmp_path))))[0]
    names = re.findall(r"<text [^>]*>([^<]*=\d+[^<]*)</text>", svg)
    assert sorted(re.sub(r" ?\d\.\d\d ?", "", name) for name in names) == [
        f"patchcor…f_all_channels={n}" for n in (10, 20, 30)
    ]
