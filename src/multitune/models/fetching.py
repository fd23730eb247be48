"""Files of a model, from the Hub, its cache or a folder: faults told in one line, and none of their code run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from multitune.errors import UserError
from multitune.models.offline_models import OFFLINE
from multitune.storage.hub import hub_address, hub_reachable, is_repository
from multitune.storage.memory import is_out_of_memory

NO_FILE = "does not appear to have a file named"
"""In what transformers says where a repository, or the cache of one, lacks a file."""
ADAPTER = "adapter_config.json"
"""Is in a folder that peft has saved."""


def fetched(
    name: str, from_pretrained: Callable[..., Any], is_whole: Callable[[Any], bool] = lambda _: True, **options: Any
) -> Any:
    """Call a ``from_pretrained`` with errors that tell a user what to do; code of a repository never runs.

    Args:
        name: of a folder, of a repository of the Hub, which is asked for what its cache here lacks, or of an offline
            model.
        from_pretrained: of one of transformers' Auto classes.
        is_whole: whether what came of the cache has all that belongs to it; transformers does without some files.
        options: of ``from_pretrained``.

    Raises:
        UserError: the model cannot be had, is damaged, or needs code of its own.
    """
    options["trust_remote_code"] = False  # where it is not given, transformers asks on standard input
    if name.startswith("offline:"):
        if name not in OFFLINE:
            raise UserError(f"model: unknown offline model {name!r}; allowed: {', '.join(OFFLINE)}")
        return from_pretrained(OFFLINE[name].directory(), **options)
    try:
        return _fetched(name, from_pretrained, is_whole, options)
    except Exception as error:  # a model's files are read by several libraries, which raise whatever they meet first
        if is_out_of_memory(error):
            raise
        raise UserError(_cannot_load(name, error)) from error


def _fetched(
    name: str, from_pretrained: Callable[..., Any], is_whole: Callable[[Any], bool], options: Mapping[str, Any]
) -> Any:
    try:
        loaded = from_pretrained(name, local_files_only=True, **options)
    except Exception as error:  # where the cache has only some of a tokenizer's files, its class raises what it likes
        if Path(name).is_dir() or is_out_of_memory(error) or not hub_reachable():
            raise
    else:
        if Path(name).is_dir() or is_whole(loaded) or not hub_reachable():
            return loaded
    return from_pretrained(name, **options)


def _cannot_load(name: str, error: Exception) -> str:
    said = str(error).strip()
    if "trust_remote_code" in said:
        return (
            f"model: {name!r} needs code of its own, which multitune never runs; choose a model that transformers has"
        )
    if "ignore_mismatched_sizes" in said:
        return f"model: cannot load {name!r}: its weights have other sizes than its config.json says"
    if Path(name).is_dir():
        if (Path(name) / ADAPTER).is_file():
            return (
                f"model: {name!r} has an adapter alone; name a model, such as that of the adapter's run or a merged one"
            )
        return f"model: cannot load the folder {name!r}: {_reason(said, error)}"
    if "gated repo" in said:
        return (
            f"model: {name!r} is gated: ask for access at {hub_address()}/{name}, and log in with hf auth login (or "
            f"HF_TOKEN)"
        )
    if is_repository(name) and (NO_FILE in said or not isinstance(error, OSError)):
        return f"model: cannot load {name!r}: {_reason(said, error)}; if its cache here lacks files: hf download {name}"
    return (
        f"model: cannot load {name!r}: it is no folder, not in the local cache, and the Hub does not give it; name a "
        f"local folder, or one of {', '.join(OFFLINE)}, or fetch it once where there is a network: hf download {name}"
    )


def _reason(said: str, error: Exception) -> str:
    why = said.splitlines()[0].rstrip(".: ") if said else "no reason is given"
    if isinstance(error, ImportError):
        return f"{why}{'; no quantized model can be trained' if 'quantiz' in why else ''}"
    if isinstance(error, OSError | ValueError):
        return why
    return f"its files are damaged or do not fit each other ({type(error).__name__}: {why})"
