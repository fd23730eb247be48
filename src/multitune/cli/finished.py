"""Commands about runs that have ended."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from multitune.cli import output
from multitune.cli.options import AsCsv, AsJson, ByLanguage, Overrides, Quiet
from multitune.cli.output import say
from multitune.errors import UserError


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    overrides: Overrides = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    quiet: Quiet = False,
) -> None:
    """Score the model of a run again.

    Its own test languages are scored, or others: unseen=[ja,th].
    """
    output.check(as_json=as_json, as_csv=as_csv)

    with output.watched(quiet=quiet):
        with output.importing():
            from multitune.cli import tables
            from multitune.commands.evaluate import evaluate as score
            from multitune.recipe_files import parse_overrides
            from multitune.results.run import FILE, RunResult

        scores = score(run, parse_overrides(overrides or []))
    finished = RunResult.read(run) if (run / FILE).exists() else None
    output.show([tables.scores(scores, finished)], as_json=as_json, as_csv=as_csv)


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    texts: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="Lines, JSON Lines or a table; - is standard input.")
    ] = Path("-"),
    language: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which model or head, where the run has several.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Predict new texts with the model of a run.

    Each line is a text, or a JSON object with the fields of the kind of task or the recipe's columns; CSV, TSV, Parquet
    and Arrow files have rows with these. Each line of the output is such an object with the prediction and its scores.
    """
    with ExitStack() as screen:
        screen.enter_context(output.watched(quiet=quiet))
        with output.importing():
            from multitune.commands.predict import SAID, read_texts
            from multitune.commands.predict import predict as ask

        source = "standard input" if str(texts) == "-" else str(texts)
        for prediction in ask(run, read_texts(texts), language=language, source=source):
            if sys.stdout.isatty():
                screen.close()  # what is printed moves by itself, and bars would stand between its lines
            said = {name: value for name, value in prediction.items() if name in SAID}
            print(output.json_text(prediction | output.rounded(said)))


def probe(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    overrides: Overrides = None,
    pairs: Annotated[Path | None, typer.Option(help="Folder of Tatoeba, SIB-200 or XQuAD, for retrieval.")] = None,
    mlm_head: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run of recipes/mlm_head.yaml, for masked tokens.")
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(help="Folder of LANGUAGE.txt or SIB-200, for a causal language model to read.")
    ] = None,
    by_language: ByLanguage = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    quiet: Quiet = False,
) -> None:
    """Measure why a run's model does what it does.

    Gradient similarity of its languages, what is left of pretraining, and drift go to RUN/probes.json.
    """
    output.check(as_json=as_json, as_csv=as_csv)

    with output.watched(quiet=quiet):
        with output.importing():
            from multitune.cli import probe_tables
            from multitune.commands.probe import probe as measure
            from multitune.recipe_files import parse_overrides
            from multitune.results.probes import FILE

        told = _silent if quiet else say
        asked = parse_overrides(overrides or [])
        findings = measure(run, asked, pairs=pairs, mlm_head=mlm_head, texts=texts, say=told)
    sheets = [*probe_tables.probes(findings), *([probe_tables.retention(findings)] if by_language else [])]
    output.show(sheets, as_json=as_json, as_csv=as_csv)
    if not quiet:
        say(f"all that was measured is in {run / FILE}")


def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs of one model.")],
    toward_pretrained: Annotated[
        bool, typer.Option("--toward-pretrained", help="Also points between the runs and the pretrained weights.")
    ] = False,
    weights: Annotated[
        str | None, typer.Option(metavar="W,W", help="Shares of the runs in these points; default: 1,0.9,0.8.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder; default RUN-merged, of the first run.")] = None,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Draw seen against unseen scores.")] = True,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    quiet: Quiet = False,
) -> None:
    """Average runs, or move them back toward pretraining.

    Nothing is trained. Each point is scored on dev and test; the best on dev is written as a model.
    """
    output.check(as_json=as_json, as_csv=as_csv)

    shares = None if weights is None else _numbers("--weights", weights)
    with output.watched(quiet=quiet):
        with output.importing():
            from multitune.cli import tables
            from multitune.commands.merge import default_folder
            from multitune.commands.merge import merge as run

        folder = out or default_folder(runs[0])
        told = _silent if quiet else say
        merged = run(runs, folder, toward_pretrained=toward_pretrained, weights=shares, figures=figures, say=told)
    output.show([tables.merged(merged)], as_json=as_json, as_csv=as_csv)
    if not quiet:
        say(f"the model of weight {merged.chosen:g}: {folder / 'model'}")


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    name: Annotated[str, typer.Argument(metavar="NAMESPACE/NAME", help="The repository, made where there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make a repository that is not public.")] = False,
) -> None:
    """Upload a run's model to the Hugging Face Hub.

    That is model/ with its card, in one commit, and nothing else of the run.
    """
    from multitune.commands.push import push as upload

    print(upload(run, name, private=private))


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run or of a comparison.")],
    figures: Annotated[bool, typer.Option("--figures", help="Also DIR/figures: PDF, SVG and PNG.")] = False,
) -> None:
    """Write the report.html of a run or a comparison anew.

    It has the answer and what the answer rests on, in one file.
    """
    from multitune.commands.report import report as write

    for path in write(folder, figures=figures):
        print(path)


def runs(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="The folder that holds them.")] = Path("runs"),
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List the runs in a folder with their scores.

    Those of comparisons and sweeps are listed, too.
    """
    output.check(as_json=as_json, as_csv=as_csv)

    from multitune.cli import tables
    from multitune.commands.runs import runs as all_runs

    output.show([tables.listed(all_runs(folder))], as_json=as_json, as_csv=as_csv)


def _silent(_: str) -> None:
    """Tell nothing."""


def _numbers(option: str, text: str) -> list[float]:
    """``"1,0.9"`` -> ``[1.0, 0.9]``."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"{option}: {text!r} is no list of numbers; write them as 1,0.9,0.8") from None
