"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

RecipePath = Annotated[
    Path,
    typer.Argument(metavar="RECIPE", help="A recipe file (YAML), a table or folder of your own, or hub:OWNER/NAME."),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Recipe keys to set, e.g. budget=400.")
]
Track = Annotated[
    str | None, typer.Option(metavar="TRACKER", help="Live curves: tensorboard, wandb, trackio or mlflow.")
]
ByLanguage = Annotated[bool, typer.Option("--by-language", help="Print the scores of each language, too.")]
Jobs = Annotated[
    int | None, typer.Option(metavar="N", help="Runs at once; default: one a card or, on a CPU, one a core.")
]
On = Annotated[str | None, typer.Option(metavar="PLACE", help="Run on a Ray cluster: ray, or ray:ADDRESS.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Tell of each checkpoint, too.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Tell of nothing but mistakes and warnings.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only estimate time, memory and disk from a few gradients; write nothing.")
]
ByClass = Annotated[bool, typer.Option("--by-class", help="Print the F1 of each label, too.")]

AsJson = Annotated[bool, typer.Option("--json", help="Print the tables as JSON: their rows by name, and notes.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print the tables as CSV, an empty line between two.")]
