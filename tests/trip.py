"""Print the trip from the command line to the number: all lines of every file of ours that ``model=draem`` imports."""

import sys
import tempfile
from pathlib import Path

LIMIT = 1000


def main() -> None:
    """Run two steps for real, then count what was imported; exit 1 above the limit."""
    from anomaly_lab.__main__ import main as command_line
    from tests.trees import mvtec_tree

    with tempfile.TemporaryDirectory() as temporary:
        root = mvtec_tree(Path(temporary) / "data")
        data = ["data=mvtec", f"data.root={root}", "data.category=part", "data.image_size=64", "data.batch_size=2"]
        small = ["model.reconstructive_width=4", "model.discriminative_width=4", "trainer=debug"]
        sys.argv = ["anomaly_lab", "model=draem", *data, *small, f"runs={temporary}/runs"]
        command_line()
    here = Path(sys.modules["anomaly_lab"].__file__ or "").parent
    ours = [module for name, module in sys.modules.items() if name.split(".")[0] == "anomaly_lab"]
    files = {Path(module.__file__) for module in ours if module.__file__}
    lines = {file.relative_to(here.parent).as_posix(): len(file.read_text().splitlines()) for file in files}
    for name, count in sorted(lines.items()):
        print(f"{count:6d}  {name}")
    print(f"{sum(lines.values()):6d}  lines from the command line to the number, of at most {LIMIT}")
    sys.exit(sum(lines.values()) > LIMIT)


if __name__ == "__main__":
    main()
