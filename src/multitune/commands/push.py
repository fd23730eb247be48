"""Upload the model of a finished run to the Hugging Face Hub."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError

from multitune.errors import UserError
from multitune.results.run import FILE
from multitune.storage.disk import check_readable
from multitune.storage.hub import FAILURES, hub_address, hub_reachable, is_repository
from multitune.training import model_card
from multitune.training.loading_code import LOADED_FROM


def push(run: str | Path, name: str, *, private: bool = False) -> str:
    """Upload a run's ``model/`` with its cards, and nothing else of the run, as one commit of a repository.

    The repository is made where there is none. Files of the same names are replaced, others stay. In the cards the code
    that loads the model gets the repository's name.

    Args:
        run: the folder of a finished run.
        name: ``namespace/name``.
        private: make a repository that is not public.

    Returns:
        The repository's address.

    Raises:
        UserError: not a finished run with its model, a name that the Hub does not allow, no token, no network, a public
            repository where a private one is asked for, or whatever the Hub refuses.
    """
    run = Path(run)
    check_readable(run)
    if "/" not in name or not is_repository(name):
        raise UserError(
            f"push: {name!r} is no name of a repository: namespace/name, at most 96 letters, digits, '-', '_' and '.'"
        )
    if not (run / FILE).exists() or not (run / "model").exists():
        raise UserError(f"{run}: push needs a finished run with its results.json and model/ (save_model: true)")
    if get_token() is None:
        raise UserError("push: no token of the Hub is known: hf auth login asks for one, or HF_TOKEN holds it")
    if not hub_reachable():
        raise UserError(f"push: {hub_address()} cannot be reached (or HF_HUB_OFFLINE is set); nothing was uploaded")
    try:
        return _uploaded(_additions(run / "model", name), run, name, private)
    except FAILURES as error:
        raise UserError(f"push: {name}: {_reason(error)}") from error


def _uploaded(files: list[CommitOperationAdd], run: Path, name: str, private: bool) -> str:
    hub = HfApi()
    address = hub.create_repo(name, private=private or None, exist_ok=True)
    if private and not hub.model_info(name).private:
        raise UserError(f"--private: {name} exists and is public; nothing was uploaded")
    try:
        hub.create_commit(name, files, commit_message=f"Upload the model of {run.resolve().name}")
    except (ValueError, RuntimeError) as error:  # the card's metadata is bad, or a file did not arrive
        why = f": {error.__cause__}" if error.__cause__ else ""
        raise UserError(f"push: {name}: {error}{why} (nothing was committed)") from error
    return str(address)


def _additions(model: Path, name: str) -> list[CommitOperationAdd]:
    """The files of a model; links, and what begins with a point, are none of them."""
    files = [file for file in sorted(model.rglob("*")) if file.is_file() and not file.is_symlink()]
    places = {file.relative_to(model).as_posix(): file for file in files}
    return [
        CommitOperationAdd(place, _named(file, name) if file.name == model_card.FILE else str(file))
        for place, file in places.items()
        if not any(part.startswith(".") for part in place.split("/"))
    ]


def _named(card: Path, name: str) -> bytes:
    """A card whose code loads the model from the Hub."""
    return card.read_bytes().replace(LOADED_FROM.encode(), f'name = "{name}"'.encode(), 1)


def _reason(error: Exception) -> str:
    """What the Hub says, in its own words where it has any."""
    if not isinstance(error, HfHubHTTPError):
        return f"the upload broke off ({str(error).strip() or type(error).__name__}); nothing was committed"
    said = error.server_message or str(error).strip().splitlines()[0]
    status = error.response.status_code
    if status in (401, 403):
        return f"the token may not write there ({status}: {said})"
    return f"the Hub refuses ({status}: {said})"
