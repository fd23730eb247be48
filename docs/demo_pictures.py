"""Draw pictures of a finished demo: its table as wide and narrow terminals show it, and its Pareto front.

python docs/demo_pictures.py [runs/demo]; make example does it after the demo.
"""

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from multitune.cli import tables
from multitune.cli.layout import fitted
from multitune.reports import figures, outcomes
from multitune.reports.evidence import load
from multitune.reports.plotting import styled
from multitune.results.comparison import Comparison

FIGURES = Path(__file__).parent / "figures"
TERMINALS = {"demo-terminal": 100, "terminal-compare": 80}
"""Picture -> columns of the terminal."""


def terminal(comparison: Comparison, columns: int) -> str:
    """The command and its table in a terminal, as SVG that asks the network for no font."""
    console = Console(record=True, width=columns, file=io.StringIO(), highlight=False, markup=False)
    console.print(Text.assemble(("$ ", "bold green"), ("make demo", "bold")))
    console.print(fitted(tables.summary(comparison), columns, "─"), end="", soft_wrap=True)
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="multitune"), flags=re.DOTALL)
    svg = svg.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")
    return re.sub(r"terminal-\d+", "terminal", svg)


def main(run: Path) -> None:
    """Write the pictures of a comparison's folder."""
    for name, columns in TERMINALS.items():
        (FIGURES / f"{name}.svg").write_text(terminal(Comparison.read(run), columns), encoding="utf-8")
    with styled(8, figures.STYLE):
        (plane,) = outcomes.plane(load(run))
        figures.draw(plane).savefig(FIGURES / "demo-plane.png", bbox_inches="tight", dpi=200)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
