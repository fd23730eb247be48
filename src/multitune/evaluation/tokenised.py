"""Texts are tokenised once: their examples are kept in the cache, and found there by their content."""

from collections.abc import Sequence

from multitune.data.corpus import Record
from multitune.data.records.digest import digest
from multitune.data.records.stored import Stored, opened, stored
from multitune.models.encoder import Encoder
from multitune.storage import cache
from multitune.tasks.task import Example, Task
from multitune.versions import versions

CODE = ("tasks/*.py", "data/languages.py", "data/records/stored.py", "seeds.py", "evaluation/tokenised.py")
"""What decides, beside the installed packages, how a record becomes an example in a file."""
FILE = "examples.arrow"


def examples(records: Sequence[Record], task: Task, encoder: Encoder, max_length: int) -> Sequence[Example]:
    """The records as the task encodes them, from the cache where they are in it.

    Those of a kind from outside the package are in it only where its class names a ``version``. No example is longer
    than the model has positions.
    """
    max_length = encoder.room_for(max_length)
    if not task.tokenised:
        return list(task.encode(records, encoder.tokenizer, max_length))

    def make() -> Stored:
        return stored(task.encode(records, encoder.tokenizer, max_length))

    kind = type(task)
    version = vars(kind).get("version")  # not an older class's: whoever changes ``encode`` has to say so
    if version is None and kind.__module__.partition(".")[0] != __name__.partition(".")[0]:
        return make()
    made_by = [kind.__module__, kind.__qualname__, version, versions(), cache.code(*CODE)]
    return cache.kept(
        "tokenised",
        cache.key(digest(records), task.labels, max_length, encoder.tokenizer_hash, made_by),
        make=make,
        write=lambda made, folder: made.write(folder / FILE),
        read=lambda folder: opened(folder / FILE),
    )
