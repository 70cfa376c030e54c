"""What a sweep shows at its end."""

SHOWN = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_aupro", "poisoned_image_auroc")
DOUBTS = "look at"  # the column of how many doubts a run's log names


def table(cells: list[tuple[list[str], dict[str, float]]]) -> str:
    """Return a line a cell: the overrides in which cells differ, then the metrics.

    A cell without them shows dashes. The last column counts the lines of a run's log that say: look at this.
    """
    given = [dict(override.partition("=")[::2] for override in overrides) for overrides, _ in cells]
    keys = [
        key
        for key in dict.fromkeys(key for one in given for key in one)
        if len({str(o.get(key)) for o in given}) > 1
    ]
    names = [name for name in SHOWN if any(name in metrics for _, metrics in cells)]
    doubted = any("doubts" in metrics for _, metrics in cells)
    rows = [[*keys, *names, DOUBTS if doubted else ""]]
    for overrides, (_, metrics) in zip(given, cells, strict=True):
        numbers = [f"{metrics[name]:.4f}" if name in metrics else "-" for name in names]
        doubts = f"{metrics['doubts']:.0f}" if "doubts" in metrics else ""
        rows.append([*(overrides.get(key, "") for key in keys), *numbers, doubts])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n" + "\n".join(lines)
