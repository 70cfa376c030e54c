"""Names of columns and tables for people: short where they stand often, whole where they stand once."""

from anomaly_lab.report.columns import RECIPES, Column
from anomaly_lab.report.run import is_reduced
from anomaly_lab.report.tables import Table
from anomaly_lab.report.values import brief_keys

REDUCED = "reduced"
SUPERVISED = "supervised"


def named(column: Column) -> str:
    """Return a column's name: the method, and what sets it apart from others of it."""
    settings = [f"{key}={text}" for key, text in column.shown]
    return " ".join([column.model, *settings, *([f"tag={column.tag}"] if column.tag else [])])


def stamps(column: Column) -> list[str]:
    """Return the words that stand wherever its numbers do: ``reduced``, ``supervised``, both or none."""
    reduced = [REDUCED] if is_reduced(column.model) else []
    return [*reduced, *([SUPERVISED] if column.supervised else [])]


def brief(column: Column) -> str:
    """Return a column's name for a plot: of a key the last part, and no value that only the recipe knows."""
    names = brief_keys(key for key, _ in column.settings)
    settings = [f"{names[key]}={text}" for key, text in column.shown if text != RECIPES]
    return " ".join([column.model, *settings, *([column.tag] if column.tag else [])])


def only_method(table: Table) -> str:
    """Return the method of all columns where there are several, so that it heads the table; else nothing."""
    models = {column.model for column in table.columns}
    return models.pop() if len(models) == 1 and len(table.columns) > 1 else ""


def headings(table: Table) -> list[str]:
    """Return the names of the columns, keys by their last names, without what `told` says of all of them."""
    names = _key_names(table)
    alone = only_method(table)
    return [
        " ".join(
            [
                *([] if alone else [column.model]),
                *(f"{names[key]}={text}" for key, text in column.shown),
                *([f"tag={column.tag}"] if column.tag else []),
                *([] if alone else [f"({stamp})" for stamp in stamps(column)]),
            ]
        )
        for column in table.columns
    ]


def told(table: Table) -> str:
    """Return what `headings` leave out, told once: the method if there is one alone, and the full keys."""
    method = only_method(table)
    keys = [f"{name} is {key}" for key, name in sorted(_key_names(table).items()) if name != key]
    known = [f"({stamp})" for stamp in stamps(table.columns[0])]
    return "; ".join([*([" ".join([method, *known])] if method else []), *keys])


def title(table: Table) -> str:
    """Return the table's name: data set, metric, and what its headings leave out."""
    return ": ".join([f"{table.data}, {table.metric}", *([more] if (more := told(table)) else [])])


def _key_names(table: Table) -> dict[str, str]:
    return brief_keys(key for column in table.columns for key, _ in column.settings)
