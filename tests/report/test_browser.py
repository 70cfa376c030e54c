"""The page in a real browser: it loads without errors, sorts, filters, shows pictures, prints, is narrow."""

import base64
import shutil

import pytest

from anomaly_lab.report.beside import Papers
from anomaly_lab.report.found import found
from anomaly_lab.report.page import Content, page
from anomaly_lab.report.tables import tables
from anomaly_lab.runs.papers import paper_tables
from tests.report.folders import kept
from tests.support.browser import chromium, opened
from tests.support.fake_runs import fake_runs

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(chromium() is None, reason="there is no Chromium; Debian has it as chromium"),
]

METRICS = ("image_auroc", "pixel_ap")
EVIL = "<img src=x onerror=alert(1)>"
OVERVIEW = "document.querySelector('#overview table')"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    folders = fake_runs(root, 200)
    for folder in folders[:3]:
        lines = [
            f"a/{i}{EVIL.replace('/', '')}.png,{'good' if i < 3 else EVIL},{int(i > 2)},{i},{i % 3}"
            for i in range(6)
        ]
        (folder / "figures" / "tsne.csv").write_text("\n".join(["path,defect,label,x,y", *lines]) + "\n")
    for n in (1, 2):
        kept(root, f"padim/own/{EVIL}", tag=EVIL, differs={f"model.{EVIL}": n}, image_auroc=0.5)
    for value, seeds in (("<b>bold</b>", (0, 1)), ("plain", (0,))):
        for seed in seeds:
            kept(root, "mlff/own/a", seed, differs={"model.text": value}, image_auroc=0.5 + seed / 10)
    for limit in (0.05, 0.3):
        settings = {"evaluation": {"fpr_limit": limit}}
        differs = {"evaluation.fpr_limit": limit}
        made = kept(root, "vt_adl/own/b", differs=differs, config=settings, image_auroc=0.5)
        shutil.copy(folders[0] / "curves.npz", made)
    out = root / "report.html"
    runs = found(root)
    content = Content(EVIL, runs, tables(runs.runs, METRICS), Papers(paper_tables()), METRICS)
    out.write_text(page(content), encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def tab(tmp_path_factory, file):
    with opened(tmp_path_factory.mktemp("profile")) as page:
        page.resize(1280)
        page.open(file)
        page.until("document.documentElement.dataset.tables === 'ready'")
        yield page


@pytest.fixture
def fresh(tab, file):
    """The page as it was opened."""
    tab.resize(1280)
    tab.open(file)
    tab.until("document.documentElement.dataset.tables === 'ready'")
    return tab


def seen(tab, query):
    """Return the texts of the elements that are shown."""
    shown = "[...document.querySelectorAll(`{}`)].filter((node) => node.checkVisibility())"
    return tab.value(f"{shown.format(query)}.map((node) => node.textContent)")


def scrolled(tab):
    """Bring all of the page into sight, so that every plot is drawn."""
    tab.value(
        "(async () => { for (let y = 0; y < document.documentElement.scrollHeight; y += 600)"
        " { scrollTo(0, y); await new Promise((done) => setTimeout(done, 60)); } })()"
    )


def test_all_of_it_comes_into_sight_without_an_error_or_a_request(fresh):
    scrolled(fresh)
    plots = "[...document.querySelectorAll('.plot')].filter((node) => node.checkVisibility())"
    fresh.until(f"{plots}.length > 5 && {plots}.every((node) => node.querySelector('svg.main-svg'))")
    pictures = fresh.value("[...document.images].map((image) => image.complete && image.naturalWidth)")
    assert len(pictures) > 20
    assert all(width == 920 for width in pictures)
    dialogs = [event for event in fresh.events if event.get("method") == "Page.javascriptDialogOpening"]
    assert (fresh.errors(), fresh.requests(), dialogs) == ([], [], [])


def test_names_of_files_and_keys_are_text(fresh):
    scrolled(fresh)
    assert fresh.value("document.querySelectorAll('[onerror]').length") == 0
    assert fresh.value("document.title") == f"Report of {EVIL}"
    assert EVIL in seen(fresh, "#runs td")
    fresh.until("document.querySelector('#tsne svg.main-svg')")
    assert EVIL in seen(fresh, "#tsne .legendtext")


def test_a_table_is_sorted_by_numbers_with_a_click_and_with_the_keyboard(fresh):
    numbers = f"[...{OVERVIEW}.tBodies[0].rows].map((row) => Number(row.cells[1].dataset.order))"
    before = fresh.value(numbers)
    fresh.value(f"{OVERVIEW}.tHead.rows[0].cells[1].click()")
    assert before != sorted(before)
    assert fresh.value(numbers) == sorted(before)
    assert fresh.value(f"{OVERVIEW}.tHead.rows[0].cells[1].getAttribute('aria-sort')") == "ascending"
    fresh.value(f"{OVERVIEW}.tHead.rows[0].cells[1].querySelector('[tabindex], button').focus()")
    key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
    fresh.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
    fresh.call("Input.dispatchKeyEvent", type="keyUp", **key)
    fresh.until(f"{OVERVIEW}.tHead.rows[0].cells[1].getAttribute('aria-sort') === 'descending'")
    assert fresh.value(numbers) == sorted(before, reverse=True)


def choose(tab, name, value):
    field = f"document.querySelector('select[data-filter={name}]')"
    tab.value(f"{field}.value = '{value}', {field}.dispatchEvent(new Event('change'))")


def test_the_page_shows_one_method_or_metric_alone(fresh):
    assert len(seen(fresh, "#tables table")) == 4 - 1  # of the other data set one metric
    choose(fresh, "metric", "pixel_ap")
    assert seen(fresh, "#tables caption") == ["mvtec, pixel_ap"]
    choose(fresh, "method", "padim_small")
    models = seen(fresh, "#tables th .model")
    assert models == ["padim_small"]
    assert len(seen(fresh, "#tables tbody tr:first-child td")) == 1
    assert set(seen(fresh, "#runs tbody th a")) == {"padim_small · mvtec"}
    choose(fresh, "metric", "")
    choose(fresh, "method", "")
    assert len(seen(fresh, "#tables table")) == 3


def test_a_search_leaves_the_rows_that_fit(fresh):
    field = "document.querySelector('#runs input[type=search]')"
    assert fresh.value(f"{field}.getAttribute('aria-label')") == "search in all runs"
    fresh.value(f"{field}.value = 'draem_small metal_nut', {field}.dispatchEvent(new Event('input'))")
    fresh.until("document.querySelectorAll('#runs tbody tr').length < 10")
    assert set(seen(fresh, "#runs tbody tr td:nth-child(2)")) == {"metal_nut"}
    choose(fresh, "method", "nearest")
    fresh.value(f"{field}.value = 'metal_nut', {field}.dispatchEvent(new Event('input'))")
    fresh.until("document.querySelectorAll('#runs tbody tr').length > 10")
    assert set(seen(fresh, "#runs tbody th a")) == {"nearest · mvtec"}


def test_the_curves_are_those_of_the_category_that_is_chosen(fresh):
    fresh.value("document.getElementById('curve-plots').scrollIntoView()")
    fresh.until("document.querySelector('#curves-roc svg.main-svg')")
    labels = fresh.value("[...document.getElementById('place').options].map((option) => option.text)")
    assert labels[:2] == ["mvtec, bottle", "mvtec, cable"]
    areas = seen(fresh, "#legend td")
    fresh.value("place.value = '1', place.dispatchEvent(new Event('change'))")
    assert seen(fresh, "#legend td") != areas
    assert len(seen(fresh, "#legend tbody th")) == 10
    assert fresh.value("document.getElementById('curves-roc').data.length") == 11  # with chance
    assert len(seen(fresh, "#curves-pro svg.main-svg")) > 0
    fresh.value("level.value = 'image', level.dispatchEvent(new Event('change'))")
    assert seen(fresh, "#curves-pro svg.main-svg") == []


def shapes(tab):
    return tab.value("document.getElementById('curves-pro').layout.shapes.map((shape) => shape.x0)")


def test_the_region_overlap_has_a_line_up_to_where_it_counts(fresh):
    fresh.value("document.getElementById('curve-plots').scrollIntoView()")
    fresh.until("document.querySelector('#curves-pro svg.main-svg')")
    assert shapes(fresh) == [0.3]
    assert "AUPRO up to 0.3" in seen(fresh, "#curves-pro svg text")
    assert "left of the dotted line" in seen(fresh, "#curves .note")[0]
    assert fresh.value("document.getElementById('curves-roc').layout.shapes") is None
    choose(fresh, "data", "own")
    assert sorted(shapes(fresh)) == [0.05, 0.3]


def test_values_of_a_setting_are_text_and_an_unknown_deviation_is_none(fresh):
    scrolled(fresh)
    figures = "[...document.querySelectorAll('#ablations figure')]"
    mine = f"{figures}.find((node) => node.textContent.includes('mlff: image_auroc by text'))"
    fresh.until(f"{mine}.querySelector('svg.main-svg')")
    labels = fresh.value(f"[...{mine}.querySelectorAll('.xtick text')].map((node) => node.textContent)")
    assert labels == ["<b>bold</b>", "plain"]
    assert fresh.value(f"{mine}.querySelectorAll('.xtick tspan[style*=bold]').length") == 0
    bars = fresh.value(f"{mine}.querySelector('.plot').data[0].error_y.array")
    assert bars[0] == pytest.approx(0.0707, abs=1e-4)
    drawn = f"[...{mine}.querySelectorAll('path.yerror')].map((path) => path.getAttribute('d') || '')"
    assert [bool(path) for path in fresh.value(drawn)].count(True) == 1, fresh.value(drawn)


@pytest.mark.parametrize("width", [500, 1280])
def test_the_axis_of_a_setting_is_where_it_belongs_and_its_title_beside_its_numbers(fresh, width):
    fresh.resize(width)
    scrolled(fresh)
    shown = "[...document.querySelectorAll('#ablations figure')]"
    fresh.until(f"{shown}.every((node) => node.querySelector('svg.main-svg'))")
    box = "getBoundingClientRect()"
    ends = (
        f"{shown}.map((node) => [node.querySelector('.ytitle').{box}.right,"
        f" Math.min(...[...node.querySelectorAll('.ytick text')].map((text) => text.{box}.left))])"
    )
    found_there = fresh.value(ends)
    assert len(found_there) > 3
    assert all(title + 8 <= numbers for title, numbers in found_there), found_there  # pixels
    ranges = fresh.value(f"{shown}.map((node) => node.querySelector('.plot').layout.yaxis.range)")
    assert all(-0.02 <= low < high <= 1.02 for low, high in ranges), ranges


def test_in_the_row_of_means_the_best_alone_is_bold(fresh):
    """For whoever prints without colours."""
    best = "node.querySelector('strong')"
    weight = f"Number(getComputedStyle({best} ?? node).fontWeight)"
    cells = "[...document.querySelectorAll('#tables tfoot td')]"
    weights = fresh.value(f"{cells}.map((node) => [{best} !== null, {weight}])")
    assert {best for best, _ in weights} == {True, False}
    assert all(weight >= 600 if best else weight == 400 for best, weight in weights), weights


def test_the_filter_of_the_data_set_hides_the_others_pictures(fresh):
    assert len(seen(fresh, "#pictures h3")) > 0
    choose(fresh, "data", "own")
    assert seen(fresh, "#pictures h3") == []
    choose(fresh, "data", "")
    assert all(text.startswith("mvtec: ") for text in seen(fresh, "#pictures h3"))


@pytest.mark.parametrize("width", [390, 768])
def test_no_page_is_wider_than_its_window(fresh, width):
    fresh.resize(width)
    scrolled(fresh)
    assert fresh.value("document.documentElement.scrollWidth <= innerWidth")
    wide = (
        "[...document.querySelectorAll('main *')].filter((node) => node.checkVisibility()"
        " && !node.closest('.box, pre, svg') && node.getBoundingClientRect().right > innerWidth + 1)"
    )
    assert fresh.value(f"{wide}.map((node) => node.outerHTML.slice(0, 80))") == []


def test_a_name_in_the_table_of_areas_lies_on_no_number(fresh):
    fresh.resize(390)
    fresh.value("document.getElementById('curve-plots').scrollIntoView()")
    fresh.until("document.querySelector('#curves-roc svg.main-svg')")
    heads = "[...document.querySelectorAll('#legend tbody th')]"
    over = fresh.value(f"{heads}.map((node) => node.scrollWidth - node.clientWidth)")
    assert over == [0] * 10, over


def test_it_prints_with_every_plot_and_without_what_one_cannot_press_on_paper(fresh):
    pdf = base64.b64decode(fresh.call("Page.printToPDF", printBackground=False)["data"])
    assert pdf.startswith(b"%PDF-")
    assert fresh.value("document.querySelectorAll('#ablations svg.main-svg').length") > 0
    fresh.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert seen(fresh, ".filters, nav, .records, .dt-search") == []
        assert seen(fresh, "#overview table")
    finally:
        fresh.call("Emulation.setEmulatedMedia", media="")


def test_in_the_dark_tables_are_dark(fresh):
    def ground(query):
        node = f"document.querySelector('{query}')"
        return fresh.value(f"getComputedStyle({node}).backgroundColor")

    assert ground("body") == "rgb(255, 255, 255)"
    fresh.resize(1280, dark=True)
    assert ground("body") == "rgb(20, 24, 31)"
    assert ground("#overview .dt-container") == "rgba(0, 0, 0, 0)"
    assert fresh.value("document.documentElement.classList.contains('dark')")


def test_a_link_to_a_run_opens_its_config(fresh):
    fresh.value("document.querySelector('#runs tbody th a').click()")
    node = "document.getElementById(location.hash.slice(1))"
    fresh.until(f"location.hash && {node}.open")
    assert fresh.value(f"{node}.querySelector('pre').checkVisibility()")
    assert "image_size" in fresh.value(f"{node}.querySelector('pre').textContent")
    assert fresh.value("document.querySelectorAll('.records > details[open]').length") == 1
