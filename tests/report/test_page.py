"""The page: everything inside it, nothing of a run read as HTML, what is left out said."""

import json
import re
from html.parser import HTMLParser

import pytest

from anomaly_lab.report.beside import Papers
from anomaly_lab.report.columns import Column
from anomaly_lab.report.found import found
from anomaly_lab.report.markup import data, element
from anomaly_lab.report.page import Content, page
from anomaly_lab.report.remarks import doubts
from anomaly_lab.report.summary import heading, overview, tabled
from anomaly_lab.report.tables import SEVEN, tables
from anomaly_lab.runs.papers import paper_tables
from tests.report.folders import kept
from tests.support.fake_runs import fake_runs

PAPERS = Papers(paper_tables())
METRICS = ("image_auroc", "pixel_ap")


class Reader(HTMLParser):
    """Reads a page as a browser does: elements with their attributes, and the text outside of scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.text = []
        self._open = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in {"img", "input", "meta"}:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, text):
        if self._open and self._open[-1] not in {"script", "style"}:
            self.text.append(text)


def made(root):
    return tables(found(root).runs, ["image_auroc"])


def paged(root):
    runs = found(root)
    return page(Content("here", runs, tables(runs.runs, METRICS), PAPERS, METRICS))


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    fake_runs(root, 100)
    (root / "padim/mvtec/tile/bad").mkdir(parents=True)
    (root / "padim/mvtec/tile/bad/manifest.json").write_text("{")
    kept(root, "draem/mvtec/bottle", status="failed", differs={"synthesis.textures": "DTD"})
    return root


@pytest.fixture(scope="module")
def read(fake):
    return Reader(paged(fake))


def test_a_page_has_each_section_and_asks_for_nothing(read):
    titles = [attributes["id"] for tag, attributes in read.elements if tag == "section"]
    assert titles == [
        *(
            "overview",
            "tables",
            "compared",
            "ablations",
            "curves",
            "pictures",
            "side-by-side",
            "doubts",
            "left-out",
        ),
        "runs",
    ]
    sources = [
        attributes[key] for _, attributes in read.elements for key in ("src", "href") if key in attributes
    ]
    assert sources
    assert all(source.startswith(("#", "data:image/jpeg;base64,")) for source in sources)
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in read.elements}


def test_every_link_leads_somewhere_and_names_are_unique(read):
    names = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(names) == len(set(names))
    links = {attributes["href"][1:] for tag, attributes in read.elements if tag == "a"}
    assert links <= set(names)
    assert len([name for name in names if name.startswith("run-")]) == 101


def test_pictures_say_what_they_show_and_cells_what_they_are_of(read):
    pictures = [attributes for tag, attributes in read.elements if tag == "img"]
    assert len(pictures) > 20
    assert all(attributes["alt"] for attributes in pictures)
    heads = [attributes for tag, attributes in read.elements if tag == "th"]
    assert {attributes["scope"] for attributes in heads} == {"row", "col"}


def test_failed_and_unreadable_runs_stand_there_with_their_errors(read, fake):
    text = "".join(read.text)
    assert "102 runs: 100 done, 1 failed, 1 unreadable." in text
    assert f"not read: {fake}/padim/mvtec/tile/bad/manifest.json: is damaged" in text
    assert f"failed: {fake}/draem/mvtec/bottle" in text
    assert "DataError: gone" in text


def test_doubts_stand_once_with_the_runs_that_have_them(tmp_path):
    for seed in range(7):
        folder = kept(tmp_path, "padim/own/a", seed, image_auroc=0.5)
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "doubts": ["all alike", f"of {seed}"]}))
    lines = list(doubts(found(tmp_path)))
    named = "; ".join(f"padim on own, a, seed {seed}" for seed in range(5))
    assert lines[0] == f"all alike ({named} and 2 more)"
    assert lines[1:3] == [f"of {seed} (padim on own, a, seed {seed})" for seed in (0, 1)]
    text = "".join(Reader(paged(tmp_path)).text)
    assert lines[0] in text


def test_runs_that_differ_in_tag_and_settings_are_told_apart(tmp_path):
    for tag, sigma in (("oracle-run", 4), ("run", 3)):
        facts = {"doubts": [f"of {tag}"]}
        kept(
            tmp_path, "padim/own/a", tag=tag, differs={"model.sigma": sigma}, manifest=facts, image_auroc=0.5
        )
    assert list(doubts(found(tmp_path))) == [
        f"of {tag} (padim model.sigma={sigma} tag={tag} on own, a, seed 0)"
        for tag, sigma in (("oracle-run", 4), ("run", 3))
    ]
    table = paged(tmp_path).partition('id="runs"')[2]
    assert re.findall(r'<th scope="col">(.*?)</th>', table)[:3] == ["run", "category", "tag"]
    assert re.findall(r'<td class="text">(.*?)</td>', table)[1::3][:2] == ["oracle-run", "run"]


def test_runs_that_differ_in_one_key_are_told_apart_and_one_run_again_is_told_once(tmp_path):
    facts = {"doubts": ["all alike"]}
    for n, started in ((1, ""), (2, "2026-01-01"), (2, "2026-01-02")):
        differs = {"model.n": n}
        kept(tmp_path, "padim/own/a", differs=differs, started=started, manifest=facts, image_auroc=0.5)
    names = [f"padim model.n={n} on own, a, seed 0" for n in (1, 2)]
    (line,) = doubts(found(tmp_path))
    assert sorted(line.removeprefix("all alike (").removesuffix(")").split("; ")) == names


@pytest.mark.parametrize(
    ("tag", "metrics", "said"),
    [
        ("run", {"image_auroc": 0.5}, "."),
        ("oracle-run", {"image_auroc": 0.5}, " but the settings of 1 runs, tagged oracle."),
        (
            "oracle-run",
            dict.fromkeys(SEVEN, 0.5),
            " but the settings of 1 runs, tagged oracle and the threshold in image_f1_max and mad.",
        ),
    ],
)
def test_the_page_says_for_what_test_labels_were_used(tmp_path, tag, metrics, said):
    kept(tmp_path, "padim/own/a", tag=tag, **metrics)
    runs = found(tmp_path)
    names = ("image_auroc", "image_f1_max", "mad")
    text = "".join(Reader(page(Content("x", runs, tables(runs.runs, names), PAPERS, names))).text)
    assert f"scores are raw, and nothing was chosen on test images{said}" in text


def test_the_best_of_what_is_all_done_is_bold_though_a_better_one_is_not(tmp_path):
    for method, value in (("padim", 0.99), ("mlff", 0.9), ("nearest", 0.8)):
        kept(tmp_path, f"{method}/own/a", image_auroc=value)
    kept(tmp_path, "padim/own/a", 1, status="running")
    kept(tmp_path, "draem/own/a", tag="oracle-run", image_auroc=1)  # no fair number
    assert re.findall(r"<strong>(.*?)</strong>", "".join(overview(made(tmp_path)))) == ["0.900 (1)"]
    (table,) = made(tmp_path)
    assert re.findall(r"<strong>(.*?)</strong>", tabled(table, PAPERS)) == ["0.900 (1)"]


def test_a_setting_has_its_last_word_where_no_other_ends_alike():
    short = heading(Column("prff_small", (("model.a.iterations", "1"),), ""))
    assert "".join(short).count(">iterations=1<") == 1
    assert ">reduced<" in "".join(short)
    alike = "".join(heading(Column("prff", (("model.a.width", "1"), ("model.b.width", "2")), "old")))
    assert ">model.a.width=1<" in alike
    assert ">tag=old<" in alike
    assert "reduced" not in alike


def test_a_metric_that_no_run_has_is_named_where_its_table_would_stand(tmp_path):
    kept(tmp_path, "padim/own/a", image_auroc=0.5)
    section = re.search('<section id="tables".*?</section>', paged(tmp_path))[0]
    assert '<p class="note">pixel_ap: no run has it, so there is no table of it</p>' in section
    kept(tmp_path, "padim/own/b", pixel_ap=0.5)
    assert "no run has it" not in paged(tmp_path)


def test_what_is_left_out_is_said(read):
    assert re.search(r"\d+ pictures of side by side are left out", "".join(read.text))


def test_the_ablation_stands_beside_the_papers_curve(read, fake):
    text = paged(fake)
    plots = json.loads(re.search(r'<script type="application/json" id="plots">(.*?)</script>', text)[1])
    plot = plots["ablation-0"]
    assert (plot["x"], plot["y"]) == ("model.progressive.iterations", "image_auroc")
    assert plot["paper"] == [["1", 0.989], ["2", 0.991], ["3", 0.991], ["4", 0.99], ["5", 0.99]]
    assert [point[0] for point in plot["lines"][0]["points"]] == ["1", "2", "3", "4", "5"]
    place = plots["curves"][0]
    assert (place["data"], place["category"], len(place["methods"])) == ("mvtec", "bottle", 10)
    assert place["methods"][0]["curves"]["image_fpr"][0] == 0
    assert "15 categories, so its height does not compare" in "".join(read.text)


EVIL = '<img src=x onerror="alert(1)">&</script>'


def test_no_text_of_a_run_is_read_as_html(tmp_path):
    folder = kept(
        tmp_path,
        f"padim/own/{EVIL.replace('/', '_')}",
        tag=EVIL.replace("/", "_"),
        differs={"model.x": EVIL},
        config={"x": EVIL},
        image_auroc=0.5,
    )
    kept(tmp_path, "padim/own/b", differs={"model.x": "</script><b>"}, image_auroc=0.5)
    fake_runs(tmp_path / "other", 1)
    (source,) = (tmp_path / "other").glob("*/*/*/*")
    (folder / "maps").mkdir()
    picture = next((source / "maps").glob("*.png")).read_bytes()
    (folder / "maps" / "00-lowest-defective-a<b>'\".png").write_bytes(picture)
    (folder / "curves.npz").write_bytes((source / "curves.npz").read_bytes())
    (folder / "figures").mkdir()
    lines = [f"a/{i}{'<b>' if i == 1 else ''}.png,<i>,1,{i},0" for i in range(5)]
    (folder / "figures" / "tsne.csv").write_text("\n".join(["path,defect,label,x,y", *lines]) + "\n")
    read = Reader(paged(tmp_path))
    assert [attributes for tag, attributes in read.elements if "onerror" in attributes] == []
    assert {"b", "i"} & {tag for tag, _ in read.elements} == {"b"}  # of captions
    assert EVIL in "".join(read.text)
    (image,) = [attributes for tag, attributes in read.elements if tag == "img"]
    assert "a<b>'\"" in image["alt"]


def test_places_of_further_vectors_stand_beside_those_of_embeddings(tmp_path):
    folder = kept(tmp_path, "cpcae_knn/own/a", image_auroc=0.5)
    kept(tmp_path, "padim/own/a", image_auroc=0.5)  # has none
    (folder / "figures").mkdir()
    lines = [f"a/{i}.png,dent,1,{i},0" for i in range(5)]
    for name in ("tsne", "tsne_latent"):
        (folder / "figures" / f"{name}.csv").write_text("\n".join(["path,defect,label,x,y", *lines]) + "\n")
    text = "".join(Reader(paged(tmp_path)).text)
    assert text.count("near is alike") == 2
    assert "cpcae_knn: own, a" in text
    assert "cpcae_knn, latent: own, a" in text


def test_a_damaged_file_of_a_run_costs_its_own_part_and_is_said(tmp_path):
    (folder,) = fake_runs(tmp_path, 1)
    (folder / "curves.npz").write_bytes(b"no zip")
    (folder / "figures" / "tsne.csv").write_text("path\n")
    (folder / "config.yaml").unlink()
    for file in (folder / "maps").glob("*.png"):
        file.unlink()
        file.write_text("no picture")
    text = "".join(Reader(paged(tmp_path)).text)
    assert f"{folder}/curves.npz: is no file of curves" in text
    assert f"{folder}/figures/tsne.csv: cannot be shown (its header is not path,defect,label,x,y)" in text
    assert f"{folder}/config.yaml: is no file of at most" in text
    assert "cannot be shown (UnidentifiedImageError)" in text


def test_texts_and_attributes_are_escaped_and_markup_is_not():
    inner = element("b", "<&>")
    assert element("td", inner, "<", title='"<', class_="x", hidden=True, id=None) == (
        '<td title="&quot;&lt;" class="x" hidden><b>&lt;&amp;&gt;</b>&lt;</td>'
    )
    held = data("x", {"a": "</script><!--"})
    assert "</script><!--" not in held
    assert json.loads(
        held.removeprefix('<script type="application/json" id="x">').removesuffix("</script>")
    ) == {"a": "</script><!--"}
