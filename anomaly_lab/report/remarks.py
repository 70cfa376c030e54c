"""What makes the tables doubtful, a line each: of the printed numbers, then of our runs."""

from collections import Counter
from collections.abc import Iterator, Sequence

from anomaly_lab.report.beside import Papers
from anomaly_lab.report.columns import configurations, repeated, shared_settings
from anomaly_lab.report.found import Found
from anomaly_lab.report.names import named
from anomaly_lab.report.run import is_oracle, is_reduced
from anomaly_lab.report.tables import OTHER_DATA, OTHER_SETTINGS, PERHAPS, Table
from anomaly_lab.report.texts import DOUBTFUL, OTHERWISE, OUTDATED, otherwise, outdated_in, printed_in
from anomaly_lab.report.values import brief_values

NAMED = 5  # runs with the same doubt
COMMANDS = 20
ABOUT = {  # what a reader must know of why a cell has no number
    OTHER_DATA: ", textures, weights or code",
    PERHAPS: " (older ones keep no data_content, and their data_fingerprint differs, if only with the seed)",
    OTHER_SETTINGS: ", by their config_hash",
}
PROCEDURAL = "procedural"  # in the words of a run about textures that are no photographs


def on_papers(all_found: Found, made: Sequence[Table], papers: Papers) -> Iterator[str]:
    """Yield whence the printed numbers are, and in what their protocols and our runs differ."""
    used = [printed for table in made for printed in printed_in(table, papers)]
    for table in {printed.table.name: printed.table for printed in used}.values():
        protocol = "".join(f"; {word.name}: {word.meaning}" for word in table.protocol)
        yield f"printed: {table.paper.cites}, {table.number} ({table.name}){protocol}"
    if any(printed.flag for printed in used):
        yield f"a number with a star ({DOUBTFUL}) is doubtful: experiments/papers says why"
    for line in otherwise(made, papers):
        yield f"{OTHERWISE} computed otherwise than its recipe says, by {line}"
    drawn = sorted({run.model for run in all_found.runs if PROCEDURAL in run.source and run.status == "done"})
    if drawn and used:
        yield f"textures made by formula, where the papers have photographs: {', '.join(drawn)}"
    small = sorted({run.model for run in all_found.runs if is_reduced(run.model)})
    if small and used:
        yield f"reduced recipes, which no paper had: {', '.join(small)}"


def on_runs(all_found: Found, made: Sequence[Table]) -> Iterator[str]:
    """Yield what the reader of the tables should know of our runs."""
    yield from (f"{OUTDATED} {line}" for line in outdated_in(made))
    yield from mixed(made)
    yield from all_found.changed
    if oracles := sorted({f"{run.model} on {run.data}" for run in all_found.runs if is_oracle(run.tag)}):
        yield f"settings chosen on test labels, so that no printed number stands beside: {', '.join(oracles)}"
    if taught := sorted({run.model for run in all_found.runs if run.anomalies}):
        why = "learned from labelled defects, which left the test sets; ranked with each other alone"
        yield f"supervised, {why}: {', '.join(taught)}"
    for model, key, value in shared_settings(all_found.runs):
        shown = brief_values([value])[value]
        yield f"{model}: {key}={shown} in all its runs, which its recipe has not"
    if more := repeated(all_found.runs):
        yield f"{more} times a seed was run again by the same settings: the last begun counts"
    if doubtful := sum(bool(run.doubts) for run in all_found.runs):
        yield f"{doubtful} of {len(all_found.runs)} runs say in run.log: look at this"


def without(metrics: Sequence[str], made: Sequence[Table]) -> Iterator[str]:
    """Yield which of the metrics that were asked for no run has."""
    shown = {table.metric for table in made}
    yield from (f"{name}: no run has it, so there is no table of it" for name in metrics if name not in shown)


def mixed(made: Sequence[Table]) -> Iterator[str]:
    """Yield of which cells the runs are no seeds of one configuration, and why."""
    found: dict[tuple[str, str, str], dict[str, None]] = {}
    for table in made:
        for (category, column), cell in table.cells.items():
            if cell.mixed:
                found.setdefault((table.data, named(column), cell.mixed), {})[category] = None
    for (data, name, why), categories in found.items():
        yield f"no number on {data} for {name}: runs {why}{ABOUT[why]} on {', '.join(categories)}"


def on_origin(all_found: Found) -> Iterator[str]:
    """Yield by which commands, of what code, on what machine and in which time the runs were made."""
    done = [run for run in all_found.runs if run.status == "done"]
    commands = Counter(run.origin.command for run in done if run.origin.command)
    for command, count in commands.most_common(COMMANDS):
        yield f"{count} run{'s' if count > 1 else ''} by: {command}"
    if len(commands) > COMMANDS:
        yield f"and the rest by {len(commands) - COMMANDS} more commands: see each run"
    makers = Counter((run.origin.commit, run.origin.torch, run.origin.hardware) for run in done)
    for (commit, torch, hardware), count in makers.items():
        if commit or torch or hardware:
            changed = " with changes" if commit.endswith("+") else ""
            code = f"commit {commit.rstrip('+') or 'unknown'}{changed}"
            yield f"{count} of {code}, with torch {torch or 'unknown'}, on {hardware or 'an unknown machine'}"
    if seconds := sum(run.origin.seconds for run in done):
        seeds = ", ".join(map(str, sorted({run.seed for run in done})))
        hours = f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
        yield f"{hours} of runs in all; seeds {seeds}"


def on_failures(all_found: Found) -> Iterator[str]:
    """Yield why runs failed, and which cannot be read."""
    yield from (f"failed: {run.where}: {run.error}" for run in all_found.runs if run.error)
    yield from (f"not read: {line}" for line in all_found.unreadable)


def doubts(all_found: Found) -> Iterator[str]:
    """Yield what makes the numbers of single runs doubtful, each doubt once with the runs that have it."""
    by_doubt: dict[str, dict[str, None]] = {}  # names, of a seed that was run again once
    for data in dict.fromkeys(run.data for run in all_found.runs):
        mine = [run for run in all_found.runs if run.data == data]
        columns = configurations(mine)
        for run in mine:
            name = f"{named(columns[run.path])} on {data}, {run.category}, seed {run.seed}"
            for line in run.doubts:
                by_doubt.setdefault(line, {})[name] = None
    for line, names in ((line, list(names)) for line, names in by_doubt.items()):
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield f"{line} ({'; '.join(names[:NAMED])}{more})"
