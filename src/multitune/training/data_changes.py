"""Whether a run's data are those that it began with: hashes of its records, in its checkpoints and results."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from multitune.data.corpus import Corpus, Record
from multitune.data.records.digest import digest
from multitune.errors import UserError
from multitune.recipe import Recipe
from multitune.results.digests import SPLITS, Digests, Split
from multitune.results.run import FILE, RunResult
from multitune.training import checkpoint
from multitune.training.loading import LIMITS, READING, replayed
from multitune.training.run_folder import CHECKPOINTS


def digests_of(corpus: Corpus, replay: Sequence[Record] | None) -> Digests:
    """Hashes of what a run on a corpus, already cut to its limits, learns from and is scored on.

    Args:
        replay: the replayed texts, where they are not the corpus's own.
    """

    def hashes(split: Mapping[str, Sequence[Record]]) -> dict[str, str]:
        return {language: digest(records) for language, records in split.items()}

    train, dev, test = map(hashes, (corpus.train, corpus.dev, corpus.test))
    return Digests(train, dev, test, None if replay is None else digest(replay))


def own_replay(recipe: Recipe) -> bool:
    """Whether a recipe replays texts of a data set that it does not train on."""
    return recipe.replay is not None and recipe.replay.data is not None


def check_unchanged(out: Path, recipe: Recipe, corpus: Corpus, *, option: str) -> None:
    """Refuse a run folder whose run has learnt from, or was scored on, other records than these.

    An unfinished run was not yet scored on its test records: they may change. A folder that does not say what its run
    saw passes.

    Args:
        out: a run folder, or one that is not there yet.
        recipe: of the run.
        corpus: its data, already cut to its limits.
        option: begins the message.

    Raises:
        UserError: the data changed; or a results.json is damaged.
    """
    saved = list(_saved(out))
    if not saved:
        return
    now = digests_of(corpus, replayed(recipe, corpus) if own_replay(recipe) else None)
    for folder, before, splits in saved:
        if changes := before.changes(now, splits):
            raise UserError(
                f"{option}: the data changed: {changes} are not those that {folder} was made with; put the old "
                f"ones back, or begin anew in another folder"
            )


def changes_since(out: Path, corpus: Corpus, overrides: Mapping[str, Any], splits: Sequence[Split]) -> str:
    """What differs between a run's records and those of the same languages now, in words; empty where nothing does.

    Args:
        out: a run folder; one that does not say what its run saw has no changes.
        corpus: the data now.
        overrides: recipe keys of now; where they ask for other records, nothing is to be told.
        splits: what is looked at.
    """
    before = saved_digests(out)
    if before is None or not overrides.keys().isdisjoint((*READING, *LIMITS)):
        return ""
    now = digests_of(corpus, None)
    return before.shared(now).changes(now.shared(before), splits)


def saved_digests(out: Path) -> Digests | None:
    """Hashes of what the run in a folder saw, finished or not; None where the folder does not say."""
    if (out / FILE).exists():
        return RunResult.read(out).digests
    return checkpoint.newest_digests(out / CHECKPOINTS)


def _saved(out: Path) -> Iterator[tuple[Path, Digests, Sequence[Split]]]:
    """What is known of a run, of each language's where each has a model, and the splits that must be the same."""
    for folder in (out, *sorted(out.glob("languages/*"))):
        digests = saved_digests(folder)
        if digests is not None:
            yield folder, digests, SPLITS if (folder / FILE).exists() else ("train", "dev")
