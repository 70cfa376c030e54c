"""The papers' numbers: means against their cells, names against ours, cells against what was read by eye."""

import shutil
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from itertools import groupby
from math import prod
from typing import get_args, get_type_hints

import pytest
import yaml
from omegaconf import OmegaConf

from anomaly_lab.data.sets.btad import BTAD
from anomaly_lab.data.sets.gtanoic import GTanoIC
from anomaly_lab.data.sets.one_class.published import Mnist
from anomaly_lab.data.sets.zipper import Zipper
from anomaly_lab.errors import DataError
from anomaly_lab.runs.papers import FOLDER, PrintedCell, PrintedMean, paper_tables
from tests.support.runs import composed, options

TABLES = {table.name: table for table in paper_tables()}
SAID = yaml.safe_load((FOLDER / "tables.yaml").read_text())
CELLS = [(table.name, cell) for table in TABLES.values() for cell in table.cells]
MEANS = [(table.name, mean) for table in TABLES.values() for mean in table.means]
RECIPES = set(options("model"))

CATEGORIES = {
    "mvtec": {
        *("carpet", "grid", "leather", "tile", "wood", "bottle", "cable", "capsule", "hazelnut", "metal_nut"),
        *("pill", "screw", "toothbrush", "transistor", "zipper"),
    },
    "dagm": set(),
    "": set(),  # not named
} | {
    name: set(get_args(get_type_hints(kind)["category"]))
    for name, kind in (("btad", BTAD), ("gtanoic", GTanoIC), ("zipper", Zipper), ("mnist", Mnist))
}
# Categories of a table that does not have all of them.
PARTS = {
    "cpcae_table4": "bottle cable capsule hazelnut metal_nut pill toothbrush transistor",
    "piade_vectors": "carpet leather wood bottle capsule hazelnut screw",
    "piade_losses": "bottle capsule carpet",
    "vt_adl_user_run": "hazelnut",
}


def exact(number: PrintedCell | PrintedMean) -> Fraction:
    return Fraction(Decimal(f"{number.value:.{number.digits}f}"))


def half_unit(number: PrintedCell | PrintedMean) -> Fraction:
    return Fraction(1, 2 * 10**number.digits)


def cells_of(table: str, mean: PrintedMean) -> dict[str, PrintedCell]:
    found = [c for c in TABLES[table].cells if (c.method, c.metric) == (mean.method, mean.metric)]
    return {c.category: c for c in found if c.category in mean.categories}


def value(table: str, method: str, metric: str, category: str = "", /, **more: str) -> float | None:
    """Return the one cell of a table that fits; more: data, or a setting by the last word of its key."""
    (cell,) = (
        c
        for c in TABLES[table].cells
        if (c.method, c.metric, c.category) == (method, metric, category)
        and more.items()
        <= {"data": c.data, **{key.rpartition(".")[2]: one for key, one in c.settings}}.items()
    )
    return cell.value


def mean_of(table: str, method: str, metric: str, over: str = "all") -> PrintedMean:
    wanted = (method, metric, over)
    (mean,) = (m for m in TABLES[table].means if (m.method, m.metric, m.over) == wanted)
    return mean


COUNTS = """
prff_table3 15 * 7, prff_table4 15 * 7, prff_table5 7 * 5, prff_table6 7 * 5,
prff_table7 4 * 5, prff_table8 6 * 2, cpcae_table3 6 * 5 * 2, cpcae_table4 8 * 15,
vt_adl_table2 10 * 9, vt_adl_table3 15 * 10, vt_adl_table4 3 * 4, vt_adl_gaussians 8, vt_adl_noise 2,
vt_adl_user_run 3, mlff_table1 15 * 7, mlff_table2 15 * 7 * 2, mlff_table3 6 * 3, mlff_table4 5 * 3,
draem_table1 15, draem_table2 15 * 4 * 2, draem_table3 11 * 3, draem_table4 4, draem_checkpoints 3,
piade_vectors 7 * 2, piade_losses 3 * 3
"""


def test_there_are_as_many_numbers_as_are_printed():
    counts = dict(entry.strip().split(" ", 1) for entry in COUNTS.split(","))
    assert {name: len(table.cells) for name, table in TABLES.items()} == {
        name: prod(map(int, sides.split(" * "))) for name, sides in counts.items()
    }
    assert (len(TABLES), len(CELLS), len(MEANS)) == (25, 1303, 130)
    assert sum(number.value is None for _, number in (*CELLS, *MEANS)) == 87 + 8


def test_every_printed_mean_is_that_of_its_cells_or_says_that_it_is_not():
    wrong, unknown = [], []
    for name, mean in MEANS:
        cells = cells_of(name, mean)
        assert cells.keys() == set(mean.categories)
        if mean.value is None:
            assert all(cell.value is None for cell in cells.values())
        elif any(cell.value is None for cell in cells.values()):
            unknown.append((name, mean.method, mean.metric))
        else:
            apart = abs(exact(mean) - sum(map(exact, cells.values())) / len(cells))
            rounding = half_unit(mean) + sum(map(half_unit, cells.values())) / len(cells)
            if (apart > rounding) is not (mean.flag == "contradicted"):
                wrong.append((name, mean.over, mean.method, mean.metric, float(apart), float(rounding)))
    assert wrong == []
    # Each of these has one cell that cannot be read; the next test has it.
    assert unknown == [
        ("mlff_table1", "uninformed_students", "image_auroc"),
        ("mlff_table2", "mf", "pixel_aupro"),
    ]


@pytest.mark.parametrize(
    ("table", "method", "metric", "category", "needed", "read"),
    [
        ("mlff_table1", "uninformed_students", "image_auroc", "wood", 0.977, 0.917),
        ("mlff_table2", "mf", "pixel_aupro", "bottle", 0.888, 0.388),
    ],
)
def test_what_cannot_be_read_is_ruled_out_by_the_mean(table, method, metric, category, needed, read):
    mean = mean_of(table, method, metric)
    cells = cells_of(table, mean)
    assert cells.pop(category).flag == "illegible"
    left = float(exact(mean) * 15 - sum(map(exact, cells.values())))
    rounding = 15 * 0.0005 + 14 * 0.0005
    assert abs(left - needed) < rounding < abs(left - read)


def test_in_cpcaes_table_4_all_means_but_its_own_leave_out_toothbrush_and_transistor():
    for mean in TABLES["cpcae_table4"].means:
        cells = cells_of("cpcae_table4", mean)
        six = [cells[category] for category in cells if category not in ("toothbrush", "transistor")]
        apart = abs(exact(mean) - sum(map(exact, six)) / 6)
        assert (apart <= half_unit(mean) + half_unit(six[0])) is (mean.method != "cpcae_knn")
        assert (mean.flag == "contradicted") is (mean.method not in ("cpcae_knn", "ae_ssim"))


def test_data_sets_and_categories_are_those_that_we_know():
    assert {cell.data for _, cell in CELLS} == CATEGORIES.keys()
    assert CATEGORIES.keys() - {""} <= {*options("data"), *SAID["data"]}
    assert not set(options("data")) & SAID["data"].keys()
    assert set().union(*SAID["groups"].values()) == CATEGORIES["mvtec"]
    assert sum(map(len, SAID["groups"].values())) == 15
    for name, table in TABLES.items():
        wanted = set(PARTS[name].split()) if name in PARTS else CATEGORIES[table.cells[0].data]
        ablation = all(cell.category == "" for cell in table.cells)
        assert wanted <= CATEGORIES[table.cells[0].data]
        # The same categories for each method, metric and setting: no row has a hole.
        where = sorted((c.data, c.method, c.metric, c.settings, c.category) for c in table.cells)
        for _, column in groupby(where, lambda place: place[:-1]):
            assert {place[-1] for place in column} == ({""} if ablation else wanted), name


def test_methods_with_a_recipe_have_its_name_and_others_are_explained():
    named = {number.method for _, number in (*CELLS, *MEANS)}
    assert named <= RECIPES | SAID["methods"].keys()
    assert SAID["methods"].keys() <= named - RECIPES
    plain = {recipe.replace("_", ""): recipe for recipe in RECIPES}
    assert not [name for name in SAID["methods"] if name.replace("_", "") in plain]
    ours = "prff draem padim mlff vt_adl ae_mse ae_mse_ssim cpcae_knn ae_l2 deep_knn nearest variation "
    ours += "pyramidal_ae piade"
    assert named & RECIPES == set(ours.split())


def test_every_word_of_the_yaml_is_used():
    tables = TABLES.values()
    assert {table.paper.name for table in tables} == SAID["papers"].keys()
    assert {word.name for table in tables for word in table.protocol} == SAID["protocols"].keys()
    assert {word.name for table in tables for word in table.flags} == SAID["flags"].keys()
    assert {mean.over for _, mean in MEANS} == {"all", *SAID["groups"]}
    assert {cell.metric for _, cell in CELLS} == SAID["metrics"].keys()


def test_what_a_table_varies_is_a_key_of_the_recipe_where_it_has_a_dot():
    keys = {(cell.method, key) for _, cell in CELLS for key, _ in cell.settings if "." in key}
    assert len(keys) == 8
    for method, key in keys:
        assert OmegaConf.select(composed(f"model={method}", "data=demo"), key) is not None, key


def test_tables_agree_where_they_have_the_same_number():
    for category in CATEGORIES["mvtec"]:
        for method in ("draem", "riad"):
            ours = value("prff_table4", method, "pixel_auroc", category)
            assert ours == value("draem_table2", method, "pixel_auroc", category)
        ours = value("prff_table3", "draem", "image_auroc", category)
        assert ours == value("draem_table1", "draem", "image_auroc", category)
    for table in ("prff_table3", "prff_table4", "prff_table5", "prff_table6"):
        data, _, _, _, metric, *_ = TABLES[table].cells[0]
        mean = mean_of(table, "prff", metric).value
        assert mean == value("prff_table7", "prff", metric, data=data, iterations="2")
        assert mean == value("prff_table8", "prff", metric, data=data, fusion="true")
    for metric in ("image_auroc", "pixel_auroc", "pixel_aupro"):
        mean = mean_of("mlff_table1" if metric == "image_auroc" else "mlff_table2", "mlff", metric).value
        assert mean == value("mlff_table3", "mlff", metric, ratio="0.5")
        assert mean == value("mlff_table4", "mlff", metric, components="all")
    for category in PARTS["piade_losses"].split():
        ours = value("piade_losses", "piade", "image_auroc", category, terms="[mse,ssim,perceptual]")
        assert ours == value("piade_vectors", "piade", "image_auroc", category, vectors="2")
    without_noise = value("vt_adl_noise", "vt_adl", "pro_as_printed", latent_noise="0")
    assert without_noise == mean_of("vt_adl_table3", "vt_adl", "pro_as_printed").value


def test_flags_say_what_the_numbers_show():
    for name, cell in CELLS:
        assert cell.value is not None or cell.flag in ("", "illegible"), (name, cell)
        assert cell.flag != "illegible" or cell.value is None
        assert (cell.flag == "label_lost") is any(
            one in ("", "column_3", "column_4") and cell.value is not None for _, one in cell.settings
        )
        if cell.flag == "other_metric":
            assert cell.value == value("vt_adl_table3", cell.method, "pixel_aupro", cell.category)
    for name, pair in (("cpcae_table4", ("hazelnut", "pill")), ("vt_adl_table3", ("carpet", "zipper"))):
        repeated = {(c.method, c.category): c.value for c in TABLES[name].cells if c.flag == "repeated"}
        methods = {method for method, _ in repeated}
        assert {(method, category) for method in methods for category in pair} == repeated.keys()
        assert all(repeated[method, pair[0]] == repeated[method, pair[1]] for method in methods)


@pytest.mark.parametrize(("table", "best", "tied"), [("prff_table3", 6, 4), ("prff_table4", 3, 0)])
def test_prff_is_best_as_often_as_the_notes_say(table, best, tied):
    columns: dict[str, dict[str, float]] = {}
    for cell in TABLES[table].cells:
        columns.setdefault(cell.category, {})[cell.method] = cell.value or 0
    won = [row for row in columns.values() if row["prff"] == max(row.values())]
    ties = [row for row in won if list(row.values()).count(row["prff"]) > 1]
    assert (len(won), len(ties)) == (best, tied)


READ = """
prff_table3 prff carpet image_auroc .990
prff_table3 prff transistor image_auroc .974
prff_table3 riad cable image_auroc .819
prff_table3 ocr_gan screw image_auroc 1
prff_table3 intra cable image_auroc .700
prff_table3 edgrec wood image_auroc .940
prff_table4 prff transistor pixel_auroc .943
prff_table4 cutpaste tile pixel_auroc .905
prff_table5 draem D_G image_auroc .384
prff_table5 edgrec D_E image_auroc .858
prff_table6 draem D_F pixel_auroc .852
prff_table6 prff D_D pixel_auroc .977
cpcae_table3 cpcae_knn zipper_1 image_ap .9835
cpcae_table3 deep_knn zipper_3 image_ap .5110
cpcae_table3 nearest zipper_6 image_auroc .9158
cpcae_table3 variation zipper_5 image_auroc .7353
cpcae_table4 ae_l2 capsule image_auroc .5489
cpcae_table4 variation metal_nut image_auroc .4295
cpcae_table4 deep_knn pill image_ap .9238
cpcae_table4 cpcae_knn metal_nut image_auroc .7928
cpcae_table4 geotrans metal_nut image_auroc .359
vt_adl_table2 vt_adl digit_8 image_auroc .974
vt_adl_table2 pyramidal_ae digit_8 image_auroc .895
vt_adl_table3 vt_adl capsule pro_as_printed .672
vt_adl_table3 uninformed_students tile pixel_aupro .912
vt_adl_table4 vt_adl 03 image_ap .77
vt_adl_table4 ae_mse 01 image_ap .49
vt_adl_user_run vt_adl hazelnut image_auroc .7654
mlff_table1 mlff screw image_auroc .932
mlff_table1 rd capsule image_auroc .963
mlff_table1 padim zipper image_auroc .903
mlff_table2 mlff transistor pixel_aupro .808
mlff_table2 mlff transistor pixel_auroc .916
mlff_table2 fcdd toothbrush pixel_auroc .890
mlff_table2 uninformed_students transistor pixel_aupro .660
draem_table1 draem cable image_auroc .918
draem_table2 draem toothbrush pixel_ap .447
draem_table2 padim screw pixel_ap .217
draem_table2 uninformed_students transistor pixel_auroc .737
"""


def test_cells_are_those_of_the_papers():
    for line in READ.strip().splitlines():
        table, method, category, metric, number = line.split()
        assert value(table, method, metric, category) == float(number), (table, method, category)
    assert value("prff_table7", "prff", "pixel_auroc", data="mvtec", iterations="5") == 0.972
    assert value("prff_table8", "prff", "image_auroc", data="gtanoic", discriminator="unet") == 0.948
    assert value("prff_table8", "prff", "image_auroc", data="gtanoic", discriminator="") == 0.964
    assert value("vt_adl_gaussians", "vt_adl", "pro_as_printed", gaussians="150") == 0.937
    assert value("vt_adl_noise", "vt_adl", "pro_as_printed", latent_noise="0.2") == 0.897
    assert value("mlff_table3", "mlff", "pixel_aupro", ratio="0") == 0.322
    assert value("mlff_table4", "mlff", "image_auroc", components="baseline") == 0.9784
    assert value("draem_table3", "draem", "pixel_ap", variant="plain_colours") == 0.565
    assert value("draem_table4", "draem", "image_tpr") == 0.965
    assert value("draem_checkpoints", "draem", "pixel_ap") == 0.689
    assert value("piade_vectors", "piade", "image_auroc", "screw", vectors="1") == 0.44
    assert value("piade_losses", "piade", "image_auroc", "carpet", terms="[mse]") == 0.23
    assert mean_of("prff_table4", "draem", "pixel_auroc", "texture").value == 0.976
    assert mean_of("cpcae_table3", "ae_l2", "image_ap")[-3:] == (0.893, 4, "")


def test_a_record_has_what_its_file_says():
    table = TABLES["prff_table5"]
    cites = "Liu, Zhu, Feng, Zeng, Sensors 2023, 23(21), 8750"
    assert table.paper == ("prff", cites, "doi.org/10.3390/s23218750")
    assert (table.number, [word.name for word in table.protocol]) == ("Table 5", ["cropped"])
    assert table.cells[0] == ("gtanoic", "D_A", "ocr_gan", (), "image_auroc", 0.77, 3, "")
    assert [word.name for word in table.flags] == ["contradicted"]
    lost = TABLES["prff_table8"].cells[2]
    assert lost.settings == (("model.discriminator", ""), ("model.fusion", ""))


HEADER = "data,category,method,metric,value,flag\n"
FIRST = "gtanoic,D_A,ocr_gan,image_auroc,0.770,\n"  # of prff_table5.csv
MEAN = "prff_table3,texture,riad,image_auroc,0.951,\n"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("prff_table5.csv", FIRST, FIRST.replace("0.770", "77.0"), "line 2: value: 77.0 is no decimal"),
        ("prff_table5.csv", FIRST, FIRST.replace("0.770", "1.770"), "line 2: value: 1.770 is no decimal"),
        ("prff_table5.csv", FIRST, FIRST.replace("0.770", "nan"), "line 2: value: nan is no decimal"),
        ("prff_table5.csv", FIRST, FIRST.replace("0.770", ".77"), "line 2: value: .77 is no decimal"),
        ("prff_table5.csv", FIRST, FIRST.replace("0.770,", "0.770"), "line 2: has 5 fields and the header 6"),
        ("prff_table5.csv", FIRST, FIRST.replace("770,", "770,odd"), "line 2: odd is not among the flags"),
        ("prff_table5.csv", FIRST, FIRST.replace("image_auroc", ""), "line 2: nothing is not among the metr"),
        ("prff_table5.csv", FIRST, FIRST.replace("ocr_gan", ""), "line 2: method is empty"),
        ("prff_table5.csv", FIRST, FIRST + FIRST, "line 3: the same cell stands above"),
        ("prff_table5.csv", FIRST, FIRST + "\n", "line 3: has 0 fields"),
        ("prff_table5.csv", FIRST, FIRST.replace("0.770", '"0.770'), "line [0-9]+: is no csv"),
        ("prff_table5.csv", HEADER, HEADER.replace("category,", ""), "line 1: the header must be data,categ"),
        ("prff_table5.csv", HEADER, HEADER.replace("metric", "key,key,metric"), "line 1: the header must be"),
        ("prff_table5.csv", HEADER, HEADER.replace("metric", ",metric"), "line 1: the header must be"),
        ("prff_table5.csv", None, "", "line 1: the header must be"),
        ("prff_table5.csv", None, b"\xff\xfe", "cannot be read"),
        ("means.csv", "table,over,", "over,table,", "line 1: the header must be table,over"),
        ("means.csv", MEAN, MEAN.replace("table3", "table9"), "line 2: prff_table9 has no cells of riad"),
        ("means.csv", MEAN, MEAN.replace("texture", "metal"), "line 2: prff_table3 has no cells of riad"),
        ("means.csv", MEAN, MEAN.replace("riad", "rad"), "line 2: prff_table3 has no cells of rad"),
        ("means.csv", MEAN, MEAN + MEAN, "line 3: the same mean stands above"),
        ("tables.yaml", "paper: prff", "paper: prf", "tables.prff_table3: prf is not among the papers"),
        ("tables.yaml", "protocol: [cropped]", "protocol: [crop]", "crop is not among the protocols"),
        ("tables.yaml", "protocol: [cropped]", "protocol: cropped", "prff_table5.protocol: must be text, or"),
        ("tables.yaml", "number: Table 3", "number: 3", "prff_table3.number: must be text"),
        ("tables.yaml", "number: Table 3", "page: 3", "prff_table3: must have the keys"),
        ("tables.yaml", "  prff_table3:\n", "  prff_table9:\n", "differ in prff_table3; add or remove"),
        ("tables.yaml", "tables:\n", "tables:\n  prff_table9:\n", "prff_table9: must hold names"),
        ("tables.yaml", "dagm: DAGM", "1: DAGM", "data: must hold names"),
        ("tables.yaml", "texture: [", "texture: [1, ", "groups.texture: must be text"),
        ("tables.yaml", "groups:", "group:", "must have the keys"),
        ("tables.yaml", "groups:", "groups: {", "is no YAML"),
        ("tables.yaml", None, "", "must hold names"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(file, old, new, said, tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "papers")
    text = (folder / file).read_text()
    if old is None:
        (folder / file).write_bytes(new if isinstance(new, bytes) else new.encode())
    else:
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=said) as caught:
        paper_tables(folder)
    assert str(caught.value).startswith(str(folder / file))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_that_nobody_speaks_of_is_one_line(tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "papers")
    shutil.copy(folder / "prff_table3.csv", folder / "spare.csv")
    with pytest.raises(DataError, match=r"differ in spare; add or remove it$"):
        paper_tables(folder)
    (folder / "spare.csv").unlink()
    (folder / "means.csv").unlink()
    with pytest.raises(DataError, match=r"means\.csv: cannot be read"):
        paper_tables(folder)


@pytest.mark.long
def test_reading_takes_no_heavy_library():
    code = """
import sys
from anomaly_lab.runs.papers import paper_tables
assert paper_tables()
assert not {"torch", "lightning", "hydra", "omegaconf", "numpy"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
