"""The command line: parsing and printing, nothing else. Progress goes to stderr, results to stdout."""

import os
import signal
import sys
from inspect import signature
from typing import Annotated

import typer

import multitune
from multitune.cli import finished, lists, training
from multitune.cli.recipe_command import RecipeCommand
from multitune.cli.streams import flush, give_up, outlive_terminal, print_anything
from multitune.errors import AlreadySaid, Interrupted, RunError, UserError
from multitune.screen.places import is_one_of_several
from multitune.storage.disk import in_words
from multitune.storage.interrupt import Leave, leaving

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help is shown as it is written: markup eats [brackets]
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune one pretrained multilingual model on many languages at once.",
)


def main() -> None:
    """Run the command line; exit 0 on success, 2 on a user's mistake, 1 on a fault of the machine or the numbers.

    What is interrupted exits with 130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP, as shells count signals.
    """
    print_anything()
    outlive_terminal()
    try:
        with leaving():
            try:
                app(prog_name="multitune")
            finally:
                flush()
    except UserError as error:
        sys.exit(_fail(str(error), 2))
    except AlreadySaid as error:
        sys.exit(_code(error.__cause__.signal) if isinstance(error.__cause__, Interrupted) else 1)
    except RunError as error:
        sys.exit(_fail(str(error), 1))
    except Interrupted as error:
        sys.exit(_fail(str(error), _code(error.signal)))
    except OSError as error:
        if (said := in_words(error)) is None:
            raise
        give_up()
        sys.exit(_fail(said, 1) if said else 1)
    except Leave as error:  # not waiting for the thread that writes a checkpoint: a half-written one is none
        os._exit(_fail("stopped at once", _code(error.signal)))


def _code(number: signal.Signals) -> int:
    return 128 + number


def _fail(message: str, code: int) -> int:
    print(f"multitune: {' '.join(message.split())}", file=sys.stderr)
    return code


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
    if context.invoked_subcommand != "train" and is_one_of_several():
        if os.environ["RANK"] != "0":
            raise AlreadySaid
        raise UserError(
            f"multitune {context.invoked_subcommand} runs in one process: start it without torchrun, which is for "
            "multitune train"
        )


COMMANDS = (
    training.train,
    training.init,
    training.compare,
    training.sweep,
    finished.evaluate,
    finished.predict,
    finished.probe,
    finished.push,
    finished.merge,
    finished.report,
    lists.data,
    finished.runs,
    lists.cache,
    lists.methods,
    lists.recipes,
    training.demo,
    lists.schema,
    training.synthetic,
)
"""In the order of the help."""

for command in COMMANDS:
    takes_recipe_keys = "overrides" in signature(command).parameters
    app.command(cls=RecipeCommand if takes_recipe_keys else None)(command)
