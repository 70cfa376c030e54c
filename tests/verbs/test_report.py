"""The verb report: what it prints, keeps and refuses."""

import io
import json
import subprocess
import sys

import pytest

from anomaly_lab.errors import ConfigError, RunError
from anomaly_lab.verbs.report import work
from tests.bench.bench_report import cost
from tests.report.folders import kept
from tests.support.fake_runs import fake_runs
from tests.support.runs import asked


def reported(root, *overrides):
    work(asked(f"runs='{root}'", *overrides))


def test_tables_and_remarks_are_printed_and_kept(tmp_path, capsys):
    for started in ("2026-01-01", "2026-01-02"):
        differs = {"trainer.max_steps": 2}
        kept(
            tmp_path,
            "prff_small/mvtec/bottle",
            differs=differs,
            started=started,
            image_auroc=0.9,
            pixel_auroc=0.8,
        )
    kept(tmp_path, "prff/mvtec/bottle", differs={"synthesis.textures": "DTD/images"}, image_auroc=0.9)
    folder = kept(tmp_path, "draem/mvtec/bottle", image_auroc=0.9)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"synthesis_source": "procedural"}))
    kept(tmp_path, "padim/gtanoic/D_A", status="failed")
    (tmp_path / "padim" / "mvtec" / "tile" / "bad").mkdir(parents=True)
    (tmp_path / "padim" / "mvtec" / "tile" / "bad" / "manifest.json").write_text("{")
    reported(tmp_path)
    said = capsys.readouterr().out
    assert "### mvtec, image_auroc" in said
    assert "### mvtec, pixel_auroc" in said
    assert "- printed: Liu, Zhu, Feng, Zeng, Sensors 2023, 23(21), 8750, Table 3 (prff_table3)" in said
    assert "- † computed otherwise than its recipe says, by prff: synthesis.textures=DTD/images" in said
    assert "- textures made by formula, where the papers have photographs: draem\n" in said
    assert "- reduced recipes, which no paper had: prff_small" in said
    assert "- prff_small: trainer.max_steps=2 in all its runs, which its recipe has not" in said
    assert "- 1 times a seed was run again" in said
    assert "DataError: gone" in said
    assert "- not read: " in said
    folder = tmp_path / ".report"
    assert (folder / "report.md").read_text().strip() in said
    assert (folder / "report.csv").read_text().count("\n") == 7
    assert (folder / "report.tex").read_text().count(r"\begin{tabular}") == 2
    page = (folder / "report.html").read_text()
    assert "computed otherwise than its recipe says, by prff: synthesis.textures=DTD/images" in page
    reported(tmp_path)  # its own folder is no run
    assert capsys.readouterr().out == said


def test_a_metric_that_papers_print_or_runs_hold_can_be_asked_for(tmp_path, capsys):
    """VT-ADL's table IV prints a PRO that is none; its runs hold it under that name."""
    kept(tmp_path, "vt_adl/btad/01", pro_as_printed=0.9, image_recall_at_threshold=0.25)
    reported(tmp_path, "+report.metrics=[pro_as_printed,image_recall_at_threshold,image_tpr]")
    said = capsys.readouterr().out
    assert "### btad, pro_as_printed" in said
    assert "| 01       | 0.900 (1) | 0.92 (-0.020) |" in said
    assert "Table IV (vt_adl_table4)" in said
    assert "### btad, image_recall_at_threshold" in said
    line = "image_tpr: no run has it, so there is no table of it"
    assert f"- {line}\n" in said
    assert f'<p class="note">{line}</p>' in (tmp_path / ".report" / "report.html").read_text()


class Closed(io.StringIO):
    """A pipe of which nobody reads more."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("overrides", [(), ("+report.rescore=true",)])
def test_all_files_are_kept_though_nobody_reads_what_is_printed(tmp_path, monkeypatch, overrides):
    kept(tmp_path, "padim/own/a", image_auroc=0.9)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Closed())
        with pytest.raises(BrokenPipeError):
            reported(tmp_path, *overrides)
    files = {file.name: file.read_text() for file in (tmp_path / ".report").iterdir()}
    assert set(files) == {"report.md", "report.csv", "report.tex", "report.html"}
    assert "| a        | 0.900 (1) |" in files["report.md"]
    assert files["report.html"].endswith("</html>")


def test_what_was_computed_anew_is_told_also_where_no_report_can_be_kept(tmp_path, capsys):
    kept(tmp_path, "padim/own/a", image_auroc=0.9)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        reported(tmp_path, "+report.rescore=true", f"+report.folder='{tmp_path}/file/x'")
    assert capsys.readouterr().out == (
        "all metrics are of today's definitions: nothing is to be computed anew\n"
    )


def test_a_folder_that_cannot_be_made_is_an_error_also_where_nobody_reads(tmp_path, monkeypatch):
    kept(tmp_path, "padim/own/a", image_auroc=0.9)
    (tmp_path / "file").write_text("")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Closed())
        with pytest.raises(RunError, match="cannot be made"):
            reported(tmp_path, "+report.rescore=true", f"+report.folder='{tmp_path}/file/x'")


@pytest.mark.long
def test_a_closed_pipe_costs_no_file_and_no_exit_code(tmp_path):
    kept(tmp_path, "padim/own/a", image_auroc=0.9)
    command = [sys.executable, "-m", "anomaly_lab", "report", f"runs={tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        error = process.stderr.read()
        assert process.wait() == 0
    assert error == ""
    assert (tmp_path / ".report" / "report.html").is_file()


@pytest.mark.parametrize(
    ("override", "error", "said"),
    [
        ("+report.metric=mad", ConfigError, r"^report\.metric is no key; there are"),
        (
            "+report.metrics=[auroc]",
            ConfigError,
            r"^report\.metrics: auroc is none; there are image_accuracy, ",
        ),
        ("+report.metrics=[]", ConfigError, r"^report\.metrics: \[\]; give a list"),
        ("+report.rescore=maybe", ConfigError, r"^report\.rescore: maybe; give true or false"),
        ("+report.metrics=mad", RunError, r"holds no run that can be read; give runs=FOLDER"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(tmp_path, override, error, said):
    with pytest.raises(error, match=said):
        reported(tmp_path, override)


@pytest.mark.long
def test_it_takes_no_torch(tmp_path):
    kept(tmp_path, "padim/mvtec/tile", image_auroc=0.9)
    code = f"""
import sys
from anomaly_lab.__main__ import main
sys.argv = ["anomaly_lab", "report", "runs={tmp_path}", "report.folder={tmp_path}/tables"]
assert main() == 0
assert not {{"torch", "lightning", "timm"}} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tables" / "report.md").exists()


@pytest.mark.long
def test_five_hundred_runs_fit_into_a_small_page_and_little_memory(tmp_path):
    """What it takes in time is measured by tests/bench: here others may share the processor."""
    assert len(fake_runs(tmp_path, 500)) == 500
    broken = tmp_path / "padim" / "mvtec" / "tile" / "run-0-seed0"
    broken.mkdir(parents=True)
    (broken / "manifest.json").write_text('{"seed": ')
    _, peak = cost(tmp_path)
    assert peak < 300  # MiB
    page = tmp_path / ".report" / "report.html"
    assert page.stat().st_size < 20e6
    assert f"not read: {broken}/manifest.json: is damaged" in page.read_text()
