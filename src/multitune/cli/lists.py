"""Commands that say what there is: data, methods, recipes and their keys, what is kept on disk."""

from itertools import islice
from typing import Annotated

import typer

from multitune.cli import output
from multitune.cli.options import AsCsv, AsJson, Overrides, RecipePath
from multitune.cli.output import say
from multitune.errors import UserError, printable

LISTED = 20
"""Bad records that ``multitune data`` prints."""


def data(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """Count a recipe's records and list the bad ones.

    Counts are by language, pseudo-task and split; bad records come with file and line.
    """
    from multitune.commands.init import recipe_for
    from multitune.recipe_files import parse_overrides

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
        raise UserError(f"{one.data_name}: {counted(len(bad), 'bad record')}; a run stops unless skip_bad: true")


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
        say(f"removed: {cache_table.megabytes(freed).beside()} MB")
    output.show([cache_table.cache(kept.usage())], as_json=as_json, as_csv=as_csv)
    say(f"the cache: {root()}; XDG_CACHE_HOME names another folder")


def methods(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the methods with their options."""
    output.check(as_json=as_json, as_csv=as_csv)

    from multitune.cli import method_table
    from multitune.plans import listed

    output.show([method_table.methods(listed())], as_json=as_json, as_csv=as_csv)


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


def schema() -> None:
    """Print the JSON schema of recipes, for an editor."""
    from multitune.commands.schema import schema as made

    print(output.json_text(made(), indent=2))
