"""The command line: parsing and printing, nothing else. Progress goes to stderr, results to stdout."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import multitune
from multitune.cli import output
from multitune.cli.output import AsCsv, AsJson
from multitune.cli.recipe_command import RecipeCommand
from multitune.errors import AlreadySaid, Interrupted, RunError, UserError, printable
from multitune.storage.interrupt import Leave, leaving

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help is shown as it is written: markup eats [brackets]
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune one pretrained multilingual model on many languages at once.",
)

LISTED = 20
"""Bad records that ``multitune data`` prints."""

RecipePath = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe file (YAML), or a table or folder of your own.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Recipe keys to set, e.g. budget=400.")
]
Track = Annotated[str | None, typer.Option(metavar="TRACKER", help="Live curves: tensorboard, wandb or trackio.")]
ByLanguage = Annotated[bool, typer.Option("--by-language", help="Print the scores of each language, too.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Tell of each checkpoint, too.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Tell of nothing but mistakes and warnings.")]
ByClass = Annotated[bool, typer.Option("--by-class", help="Print the F1 of each label, too.")]


def main() -> None:
    """Run the command line; exit 0 on success, 2 on a user's mistake, 1 on a fault of the machine or the numbers.

    What is interrupted exits with 130 after Ctrl-C, and with 143 after SIGTERM, as shells count signals.
    """
    try:
        with leaving():
            app(prog_name="multitune")
    except UserError as error:
        sys.exit(_fail(str(error), 2))
    except AlreadySaid:
        sys.exit(1)
    except RunError as error:
        sys.exit(_fail(str(error), 1))
    except Interrupted as error:
        sys.exit(_fail(str(error), _code(error.signal)))
    except Leave as error:  # not waiting for the thread that writes a checkpoint: a half-written one is none
        os._exit(_fail("stopped at once", _code(error.signal)))


@contextmanager
def _ranks_joined() -> Iterator[int]:
    """Inside, the processes that a launcher has started as one run are a group; yields this one's rank."""
    if "RANK" not in os.environ:  # nothing of weight is loaded for a single process
        yield 0
        return
    from multitune.training.launch import joined

    with joined() as ranks:
        yield 0 if ranks is None else ranks.rank


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"multitune {multitune.__version__}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of multitune itself."""
    if context.invoked_subcommand != "train" and int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
        if os.environ["RANK"] != "0":
            raise AlreadySaid
        raise UserError(
            f"multitune {context.invoked_subcommand} runs in one process: start it without torchrun, which is for "
            "multitune train"
        )


@app.command(cls=RecipeCommand)
def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/RECIPE-METHOD-seedN, or the next.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove the run in the folder first.")] = False,
    track: Track = None,
    by_language: ByLanguage = False,
    by_class: ByClass = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train, evaluate and ship one run."""
    from multitune.commands import init as own_data
    from multitune.recipe import dumped, parse_overrides

    output.check(as_json=as_json, as_csv=as_csv)
    output.set_verbosity(verbose=verbose, quiet=quiet)

    with _ranks_joined() as rank:
        given = parse_overrides(overrides or [])
        file = own_data.recipe_for(recipe, given)
        one = file.resolve(overrides=given)  # a mistake is told before the seconds that the next imports take

        from multitune.commands.train import default_folder
        from multitune.commands.train import train as run

        folder = out or default_folder(file, one, resume=resume, overwrite=overwrite)
        if own_data.is_data(recipe) and rank == 0 and not quiet:
            _say_lines(dumped(file.run))
        result = run(file, folder, overrides=given, resume=resume, overwrite=overwrite, progress=not quiet, track=track)
    if rank != 0:
        return

    from multitune.cli import tables

    sheets = [tables.runs([result]), *([tables.languages([result])] if by_language else [])]
    output.show([*sheets, *(tables.classes([result]) if by_class else [])], as_json=as_json, as_csv=as_csv)
    if not quiet:
        _say(f"run folder: {folder}" + (f"; the model: {folder / 'model'}" if one.save_model else ""))
        _say(f"the report: {folder / 'report.html'}")


@app.command(cls=RecipeCommand)
def init(
    path: Annotated[Path, typer.Argument(metavar="DATA", help="A table (CSV, TSV, JSONL), or a folder of them.")],
    overrides: Overrides = None,
) -> None:
    """Print a recipe for data of your own.

    Its columns are recognised by name, else by what stands in them. multitune train DATA trains by the same recipe.
    """
    from multitune.commands import init as own_data
    from multitune.recipe import parse_overrides

    given = parse_overrides(overrides or [])
    file = own_data.init(path, given)
    file.resolve()
    print(own_data.text(file), end="")


@app.command(cls=RecipeCommand)
def compare(
    recipe: RecipePath,
    overrides: Overrides = None,
    methods: Annotated[str, typer.Option(help="Names with commas between; default: the recipe's.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method.")] = 1,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE,VALUE", help="Values of a recipe key to try; with several keys, all pairs."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the comparison; default runs/RECIPE.")] = None,
    track: Track = None,
    paper: Annotated[
        str | None, typer.Option(metavar="TABLE", help="Set the paper's figures beside: table1 to 5, 9, 10.")
    ] = None,
    by_language: ByLanguage = False,
    by_class: ByClass = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train several methods at one budget and compare them."""
    output.set_verbosity(verbose=verbose, quiet=quiet)

    from multitune.cli import tables
    from multitune.commands.compare import compare as run
    from multitune.commands.grid import read
    from multitune.recipe import parse_overrides

    output.check(as_json=as_json, as_csv=as_csv)
    folder = out or Path("runs") / recipe.stem
    names = [name.strip() for name in methods.split(",") if name.strip()]
    given = parse_overrides(overrides or [])
    points = read(grid or [])
    comparison = run(
        recipe,
        folder,
        methods=names,
        seeds=seeds,
        grid=points,
        overrides=given,
        progress=not quiet,
        track=track,
        paper=paper,
    )
    chosen = comparison.chosen_runs
    sheets = [*([tables.points(comparison)] if points else []), tables.summary(comparison)]
    sheets += [tables.languages(chosen, comparison.baseline)] if by_language else []
    sheets += tables.classes(chosen) if by_class else []
    sheets += [tables.beside(each) for each in comparison.paper]
    output.show(sheets, as_json=as_json, as_csv=as_csv)
    if not quiet:
        _say(f"the runs and their models are in {folder}; the report: {folder / 'report.html'}")
    if failed := [run.folder for run in comparison.failed]:
        raise RunError(
            f"{len(failed)} of {len(failed) + len(comparison.runs)} runs failed: {', '.join(failed)}; table and report "
            f"say why, and the same command tries again"
        )


@app.command(cls=RecipeCommand)
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    overrides: Overrides = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Score the model of a run again.

    Its own test languages are scored, or others: unseen=[ja,th].
    """
    from multitune.cli import tables
    from multitune.commands.evaluate import evaluate as score
    from multitune.recipe import parse_overrides
    from multitune.results.run import FILE, RunResult

    output.check(as_json=as_json, as_csv=as_csv)
    scores = score(run, parse_overrides(overrides or []))
    finished = RunResult.read(run) if (run / FILE).exists() else None
    output.show([tables.scores(scores, finished)], as_json=as_json, as_csv=as_csv)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    texts: Annotated[Path, typer.Argument(metavar="[FILE]", help="Lines or JSON Lines; - is standard input.")] = Path(
        "-"
    ),
    language: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which model or head, where the run has several.")
    ] = None,
) -> None:
    """Say what the model of a run says of new texts.

    Each line is a text, or a JSON object with the fields of the kind of task; each line of the output is such an object
    with the prediction and its scores.
    """
    from multitune.commands.predict import predict as ask
    from multitune.commands.predict import read_texts

    source = "standard input" if str(texts) == "-" else str(texts)
    for prediction in ask(run, read_texts(texts), language=language, source=source):
        print(output.json_text(prediction))


@app.command(cls=RecipeCommand)
def probe(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    overrides: Overrides = None,
    pairs: Annotated[Path | None, typer.Option(help="Folder of Tatoeba, SIB-200 or XQuAD, for retrieval.")] = None,
    mlm_head: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run of recipes/mlm_head.yaml, for masked tokens.")
    ] = None,
    by_language: ByLanguage = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Measure why a run's model does what it does.

    Gradient similarity of its languages, what is left of pretraining, and drift go to RUN/probes.json.
    """
    output.check(as_json=as_json, as_csv=as_csv)

    from multitune.cli import probe_tables
    from multitune.commands.probe import probe as measure
    from multitune.recipe import parse_overrides
    from multitune.results.probes import FILE

    findings = measure(run, parse_overrides(overrides or []), pairs=pairs, mlm_head=mlm_head, say=_say)
    sheets = [*probe_tables.probes(findings), *([probe_tables.retention(findings)] if by_language else [])]
    output.show(sheets, as_json=as_json, as_csv=as_csv)
    _say(f"all that was measured is in {run / FILE}")


@app.command()
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


@app.command()
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
) -> None:
    """Average runs, or move them back toward pretraining.

    Nothing is trained. Each point is scored on dev and test; the best on dev is written as a model.
    """
    output.check(as_json=as_json, as_csv=as_csv)

    from multitune.cli import tables
    from multitune.commands.merge import default_folder
    from multitune.commands.merge import merge as run

    shares = None if weights is None else _numbers("--weights", weights)
    folder = out or default_folder(runs[0])
    merged = run(runs, folder, toward_pretrained=toward_pretrained, weights=shares, figures=figures, say=_say)
    output.show([tables.merged(merged)], as_json=as_json, as_csv=as_csv)
    _say(f"the model of weight {merged.chosen:g}: {folder / 'model'}")


@app.command()
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


@app.command(cls=RecipeCommand)
def data(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """Count a recipe's records and list the bad ones.

    Counts are by language, pseudo-task and split; bad records come with file and line.
    """
    from multitune.commands.init import recipe_for
    from multitune.recipe import parse_overrides

    output.check(as_json=as_json, as_csv=as_csv)
    given = parse_overrides(overrides or [])
    one = recipe_for(recipe, given).resolve(overrides=given)

    from multitune.cli import data_tables
    from multitune.data.bad import BadRecords, counted
    from multitune.data.records.balance import balance
    from multitune.evaluation.lengths import measure
    from multitune.tasks import TASKS
    from multitune.training.loading import divided, read_corpus, warn_of_labels

    bad = BadRecords()
    corpus = read_corpus(one, bad)
    warn_of_labels(corpus)
    lengths, labels = measure(corpus, one.model, one.max_length), balance(corpus, TASKS)
    sheets = [data_tables.counts(corpus, lengths, one.max_length), *([data_tables.labels(labels)] if labels else [])]
    stopped = bool(bad) and not one.skip_bad
    division = None if stopped else divided(one, corpus)
    machine = as_json or as_csv
    sheets += [data_tables.bad(bad)] if bad and machine else []
    sheets += [] if division is None else [data_tables.clusters(division)]
    output.show(sheets, as_json=as_json, as_csv=as_csv)
    for place, problem in islice(bad, 0 if machine else LISTED):
        print(printable(f"{place}: {problem}"))
    if (more := len(bad) - LISTED) > 0 and not machine:
        print(f"and {more} more")
    if stopped:
        raise UserError(f"{one.data}: {counted(len(bad), 'bad record')}; a run stops unless skip_bad: true")


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="The folder that holds them.")] = Path("runs"),
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List the runs in a folder with their scores.

    Those of comparisons are listed, too.
    """
    output.check(as_json=as_json, as_csv=as_csv)

    from multitune.cli import tables
    from multitune.commands.runs import runs as all_runs

    output.show([tables.listed(all_runs(folder))], as_json=as_json, as_csv=as_csv)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all of it; runs make anew what they need.")] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show what is kept on disk between runs, or clear it.

    These are the offline encoder, its sentences, tokenised texts and pseudo-tasks.
    """
    output.check(as_json=as_json, as_csv=as_csv)

    from multitune.cli import cache_table
    from multitune.commands import cache as kept
    from multitune.storage.cache import root

    if clear:
        freed = kept.clear()
        _say(f"removed: {cache_table.megabytes(freed).beside()} MB")
    output.show([cache_table.cache(kept.usage())], as_json=as_json, as_csv=as_csv)
    _say(f"the cache: {root()}; XDG_CACHE_HOME names another folder")


@app.command()
def methods(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the methods with their options."""
    output.check(as_json=as_json, as_csv=as_csv)

    from multitune.cli import method_table
    from multitune.plans import listed

    output.show([method_table.methods(listed())], as_json=as_json, as_csv=as_csv)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The recipe to print.")] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List the recipes that come along, or print one."""
    output.check(as_json=as_json, as_csv=as_csv)

    from multitune.cli import recipe_table
    from multitune.commands import recipes as known

    if name is not None:
        print(known.path_of(name).read_text(encoding="utf-8"), end="")
        return
    summaries = {each: known.summary(file) for each, file in known.names().items()}
    output.show([recipe_table.recipes(summaries)], as_json=as_json, as_csv=as_csv)


@app.command(cls=RecipeCommand)
def demo(overrides: Overrides = None) -> None:
    """Compare two methods on twelve languages, offline.

    It takes a few minutes: multitune compare with the recipe demo and --by-language.
    """
    from multitune.commands.recipes import path_of

    compare(path_of("demo"), overrides, by_language=True)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for an editor."""
    from multitune.commands.schema import schema as made

    print(json.dumps(made(), indent=2, ensure_ascii=False))


@app.command()
def synthetic(
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for synthetic.json and the figures.")] = Path(
        "runs/synthetic"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the order in which tasks are drawn.")] = 0,
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Only the tables and synthetic.json.")] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Run every method on three tasks in the plane.

    They are those of Figure 3 of the Sequential Reptile paper.
    """
    output.check(as_json=as_json, as_csv=as_csv)

    from multitune.cli import synthetic_tables
    from multitune.experiments.synthetic import run
    from multitune.storage.disk import disk_explained

    if not no_figures:
        from multitune.experiments import synthetic_figures  # says at once where matplotlib is missing
    with disk_explained(out):
        out.mkdir(parents=True, exist_ok=True)
    results = run(seed)
    results.write(out / "synthetic.json")
    sheets = [synthetic_tables.walks(results), synthetic_tables.sweep(results)]
    output.show(sheets, as_json=as_json, as_csv=as_csv)
    if not no_figures:
        synthetic_figures.write(results, out)
    _say(f"results{'' if no_figures else ' and figures'} are in {out}")


def _say(text: str) -> None:
    Console(stderr=True, highlight=False, markup=False).print(printable(text), soft_wrap=True)


def _numbers(option: str, text: str) -> list[float]:
    """``"1,0.9"`` -> ``[1.0, 0.9]``."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"{option}: {text!r} is no list of numbers; write them as 1,0.9,0.8") from None


def _say_lines(text: str) -> None:
    for line in text.splitlines():
        _say(line)


def _code(number: signal.Signals) -> int:
    return 128 + number


def _fail(message: str, code: int) -> int:
    print(f"multitune: {' '.join(message.split())}", file=sys.stderr)
    return code
