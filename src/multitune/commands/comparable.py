"""Whether scores of several runs can be compared: they are of the same test records, in the same languages."""

from collections.abc import Collection, Mapping
from itertools import pairwise

from multitune.errors import UserError
from multitune.results.digests import Digests, tested_differently
from multitune.results.run import SIDES, Sides


def check_tested_alike(runs: Mapping[str, Digests | None]) -> None:
    """Refuse to compare scores on different records.

    Args:
        runs: folder -> what the run in it sees, None where it does not say.

    Raises:
        UserError: two runs are tested on different records of a language.
    """
    for language, first, second in tested_differently(runs):
        raise UserError(
            f"compare: the test records of {language} in {second} are not those in {first}, and scores on different "
            f"records cannot be compared; give all runs the same, or leave one of the two out"
        )


def check_same_languages(runs: Mapping[str, Sides[Collection[str]]]) -> None:
    """Refuse to compare averages over different languages; a side on which a run has no score is not compared.

    Args:
        runs: folder -> the languages that the run in it is scored in.

    Raises:
        UserError: two runs are scored in other languages.
    """
    for side in SIDES:
        scored = [(run, sorted(languages[side])) for run, languages in runs.items() if languages[side]]
        for (first, one), (second, other) in pairwise(scored):
            if one != other:
                raise UserError(
                    f"compare: {first} and {second} have other languages, so that their averages cannot be compared: "
                    f"{', '.join(one)} {side} by one, {', '.join(other)} by the other; give all runs the same"
                )
