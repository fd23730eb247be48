"""Commands that train, or make the recipe to train by."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multitune.cli import output
from multitune.cli.options import (
    AsCsv,
    AsJson,
    ByClass,
    ByLanguage,
    DryRun,
    Jobs,
    On,
    Overrides,
    Quiet,
    RecipePath,
    Track,
    Verbose,
)
from multitune.cli.output import say, say_lines
from multitune.errors import RunError, UserError
from multitune.screen.places import is_one_of_several

if TYPE_CHECKING:
    from multitune.commands.estimate import EstimatedRuns
    from multitune.results.comparison import Comparison


@contextmanager
def _ranks_joined() -> Iterator[int]:
    """Inside, the processes that a launcher has started as one run are a group; yields this one's rank."""
    if "RANK" not in os.environ:  # nothing of weight is loaded for a single process
        yield 0
        return
    from multitune.training.launch import joined

    with joined() as ranks:
        yield 0 if ranks is None else ranks.rank


def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/RECIPE-METHOD-seedN, or the next.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove the run in the folder first.")] = False,
    track: Track = None,
    dry_run: DryRun = False,
    by_language: ByLanguage = False,
    by_class: ByClass = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train, evaluate and ship one run."""
    output.check(as_json=as_json, as_csv=as_csv)
    output.set_verbosity(verbose=verbose, quiet=quiet)
    if dry_run:
        with output.watched(quiet=quiet):
            found = _estimate_run(recipe, overrides)
        _show_estimates(found, as_json=as_json, as_csv=as_csv)
        return

    with output.watched(quiet=quiet), _ranks_joined() as rank:
        with output.reading():
            from multitune.commands import init as own_data
            from multitune.recipe_files import dumped, parse_overrides

            given = parse_overrides(overrides or [])
            file = own_data.recipe_for(recipe, given)
            one = file.resolve(overrides=given)  # a mistake is told before the seconds that the next imports take
        data = one.path if one.data == "folder" else one.data
        output.announce(f"training {one.method} on {data}: {one.budget} gradients, seed {one.seed}")
        with output.importing():
            from multitune.commands.train import default_folder
            from multitune.commands.train import train as run

        folder = out or default_folder(file, one, resume=resume, overwrite=overwrite)
        if own_data.is_data(recipe) and rank == 0 and not quiet:
            say_lines(dumped(file.run))
        result = run(file, folder, overrides=given, resume=resume, overwrite=overwrite, progress=not quiet, track=track)
    if rank != 0:
        return

    from multitune.cli import tables

    sheets = [tables.runs([result]), *([tables.languages([result])] if by_language else [])]
    output.show([*sheets, *(tables.classes([result]) if by_class else [])], as_json=as_json, as_csv=as_csv)
    if not quiet:
        say(f"run folder: {folder}")
        if one.save_model:
            say(f"the model: {folder / 'model'}")
        say(f"the report: {folder / 'report.html'}")


def _estimate_run(recipe: Path, overrides: list[str] | None) -> "list[EstimatedRuns]":
    """What ``train --dry-run`` finds."""
    if is_one_of_several():
        raise UserError("--dry-run: estimates a run of one process; leave torchrun out")
    with output.reading():
        from multitune.commands.init import recipe_for
        from multitune.recipe_files import parse_overrides

        given = parse_overrides(overrides or [])
        file = recipe_for(recipe, given)
        file.resolve(overrides=given)
    with output.importing():
        from multitune.commands.estimate import estimate_run
    return [estimate_run(file, given)]


def _estimate_comparison(
    recipe: Path, overrides: list[str] | None, methods: list[str], seeds: int, grid: list[str] | None
) -> "list[EstimatedRuns]":
    """What ``compare --dry-run`` finds."""
    with output.importing():
        from multitune.commands.estimate import estimate_comparison
        from multitune.commands.grid import read
        from multitune.recipe_files import parse_overrides
    given = parse_overrides(overrides or [])
    return estimate_comparison(recipe, methods=methods, seeds=seeds, grid=read(grid or []), overrides=given)


def _show_estimates(found: "list[EstimatedRuns]", *, as_json: bool, as_csv: bool) -> None:
    from multitune.cli import estimate_table

    output.show([estimate_table.estimates(found)], as_json=as_json, as_csv=as_csv)


def init(
    path: Annotated[Path, typer.Argument(metavar="DATA", help="A table (CSV, TSV, JSONL), or a folder of them.")],
    overrides: Overrides = None,
) -> None:
    """Print a recipe for data of your own.

    Its columns are recognised by name, else by what stands in them. multitune train DATA trains by the same recipe.
    """
    from multitune.commands import init as own_data
    from multitune.recipe_files import parse_overrides

    given = parse_overrides(overrides or [])
    file = own_data.init(path, given)
    file.resolve()
    print(own_data.text(file), end="")


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
    jobs: Jobs = None,
    on: On = None,
    track: Track = None,
    paper: Annotated[
        str | None, typer.Option(metavar="TABLE", help="Set the paper's figures beside: table1 to 5, 9, 10.")
    ] = None,
    dry_run: DryRun = False,
    by_language: ByLanguage = False,
    by_class: ByClass = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train several methods at one budget and compare them.

    Finished runs are compared, without training, by their folders: multitune compare RUN RUN.
    """
    output.check(as_json=as_json, as_csv=as_csv)
    output.set_verbosity(verbose=verbose, quiet=quiet)
    if (recipe / "recipe.yaml").exists():
        if any((methods, seeds > 1, grid, out, jobs, on, track, paper, dry_run)):
            raise UserError("compare: of finished runs takes --by-language, --by-class, --json, --csv, -v and -q alone")
        finished = _compare_finished([recipe, *map(Path, overrides or [])], quiet=quiet)
        _show_comparison(finished, by_language=by_language, by_class=by_class, as_json=as_json, as_csv=as_csv)
        return

    names = [name.strip() for name in methods.split(",") if name.strip()]
    if dry_run:
        with output.watched(quiet=quiet):
            found = _estimate_comparison(recipe, overrides, names, seeds, grid)
        _show_estimates(found, as_json=as_json, as_csv=as_csv)
        return
    with output.watched(quiet=quiet):
        output.announce(f"comparing {', '.join(names) or f'the methods of {recipe}'}")
        with output.importing():
            from multitune.commands.compare import compare as run
            from multitune.commands.grid import read
            from multitune.commands.init import recipe_for
            from multitune.recipe_files import parse_overrides

        points, given = read(grid or []), parse_overrides(overrides or [])
        file = recipe_for(recipe, given)
        folder = out or Path("runs") / file.name
        comparison = run(
            file,
            folder,
            methods=names,
            seeds=seeds,
            grid=points,
            overrides=given,
            jobs=jobs,
            on=on,
            progress=not quiet,
            track=track,
            paper=paper,
        )
    _show_comparison(
        comparison, points=bool(points), by_language=by_language, by_class=by_class, as_json=as_json, as_csv=as_csv
    )
    if not quiet:
        say(f"the runs and their models are in {folder}; the report: {folder / 'report.html'}")
    if failed := [run.folder for run in comparison.failed]:
        raise RunError(
            f"{len(failed)} of {len(failed) + len(comparison.runs)} runs failed: {', '.join(failed)}; table and report "
            f"say why, and the same command tries again"
        )


def _compare_finished(folders: list[Path], *, quiet: bool) -> "Comparison":
    with output.watched(quiet=quiet), output.importing():
        from multitune.commands.compare_finished import compare_finished

        return compare_finished(folders)


def _show_comparison(
    comparison: "Comparison",
    *,
    points: bool = False,
    by_language: bool,
    by_class: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    from multitune.cli import tables

    chosen = comparison.chosen_runs
    sheets = [*([tables.points(comparison)] if points else []), tables.summary(comparison)]
    sheets += [tables.languages(chosen, comparison.baseline)] if by_language else []
    sheets += tables.classes(chosen) if by_class else []
    sheets += [tables.beside(each) for each in comparison.paper]
    output.show(sheets, as_json=as_json, as_csv=as_csv)


def sweep(
    recipe: RecipePath,
    overrides: Overrides = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE,VALUE", help="Values of a recipe key to try; with several keys, all pairs."),
    ] = None,
    rungs: Annotated[int, typer.Option(min=1, help="Budgets, each three times the one before.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each point.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder of the sweep; default runs/RECIPE-sweep.")] = None,
    jobs: Jobs = None,
    on: On = None,
    track: Track = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Find the best point of a grid on dev.

    All points get a small budget, the best third of them three times that, and so on up to the recipe's: a third of
    what the grid costs.
    """
    output.check(as_json=as_json, as_csv=as_csv)
    output.set_verbosity(verbose=verbose, quiet=quiet)

    with output.watched(quiet=quiet):
        with output.importing():
            from multitune.cli import tables
            from multitune.commands.grid import read
            from multitune.commands.init import recipe_for
            from multitune.commands.sweep import WINNER
            from multitune.commands.sweep import sweep as run
            from multitune.recipe_files import parse_overrides

        points, given = read(grid or []), parse_overrides(overrides or [])
        file = recipe_for(recipe, given)
        folder = out or Path("runs") / f"{file.name}-sweep"
        how: dict[str, Any] = {"jobs": jobs, "on": on, "progress": not quiet, "track": track}
        found = run(file, folder, grid=points, rungs=rungs, seeds=seeds, overrides=given, **how)
    output.show([tables.rungs(found)], as_json=as_json, as_csv=as_csv)
    if not quiet:
        say(f"the recipe that wins: {folder / WINNER}")


def demo(overrides: Overrides = None) -> None:
    """Compare three methods on twelve languages, offline.

    It takes about six minutes: multitune compare with the recipe demo and --by-language.
    """
    from multitune.commands.recipes import path_of

    compare(path_of("demo"), overrides, by_language=True)


def synthetic(
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the results and the figures.")] = Path(
        "runs/synthetic"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the order in which tasks are drawn.")] = 0,
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Only the tables and the results.")] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Run every method on three tasks in the plane.

    They are those of Figure 3 of the Sequential Reptile paper; what aligns their gradients is measured, too. It takes
    about two minutes.
    """
    output.check(as_json=as_json, as_csv=as_csv)

    from multitune.recipe import LARGEST_SEED

    if seed > LARGEST_SEED:
        raise UserError(f"--seed: {seed} is too large; it may be {LARGEST_SEED}")

    from multitune.cli import alignment_tables, synthetic_tables
    from multitune.experiments import alignment
    from multitune.experiments.synthetic import run
    from multitune.storage.disk import check_writable, disk_explained

    if not no_figures:
        from multitune.experiments import synthetic_figures  # says at once where matplotlib is missing
    with disk_explained(out):
        out.mkdir(parents=True, exist_ok=True)
    check_writable(out, "synthetic.json")
    results, causes = run(seed), alignment.run(seed)
    results.write(out / "synthetic.json")
    causes.write(out / "alignment.json")
    sheets = [synthetic_tables.walks(results), synthetic_tables.sweep(results)]
    sheets += [alignment_tables.orders(causes, results), alignment_tables.inner_optimizers(causes)]
    sheets += [alignment_tables.derivation(causes), alignment_tables.expansion(causes)]
    output.show(sheets, as_json=as_json, as_csv=as_csv)
    if not no_figures:
        synthetic_figures.write(results, causes, out)
    say(f"results{'' if no_figures else ' and figures'} are in {out}")
