"""``multitune push`` against a small server that speaks the Hub's API: what is uploaded, and what is refused."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import multitune as mt
from builders import run_result
from multitune.cli.app import app
from multitune.errors import UserError
from multitune.training.loading_code import LOADED_FROM
from small_hub import SmallHub, serving

CARD = f"---\nlanguage: de\n---\n```python\n{LOADED_FROM}\n```\n"
WEIGHTS = b"\0" * 64
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
"""The Hub's client with its HTTP library."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[SmallHub]]:
    with serving(monkeypatch) as small:
        yield small


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of two models, with a checkpoint that is nobody's business."""
    folder = tmp_path / "run"
    files = {
        "model/README.md": CARD.encode(),
        "model/de/README.md": CARD.encode(),
        "model/de/model.safetensors": WEIGHTS,
        "model/.README.md.part": b"half",
        "checkpoints/1/state.safetensors": b"secret",
        "recipe.yaml": b"data: panx\n",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "model" / "link.json").symlink_to("/etc/hostname")
    run_result({"de": {"f1": 50.0}}).write(folder)
    return folder


@pytest.mark.parametrize(("private", "name"), [(False, "me/new"), (True, "me/new"), (True, "me/private")])
def test_the_model_and_nothing_else_is_uploaded_in_one_commit(
    run: Path, hub: type[SmallHub], private: bool, name: str
) -> None:
    address = mt.push(run, name, private=private)
    repository = hub.repositories[name]
    assert address.endswith(f"/{name}")
    assert repository["private"] is private
    assert repository["commits"] == ["Upload the model of run"]
    card = CARD.replace(LOADED_FROM, f'name = "{name}"').encode()
    assert repository["files"] == {"README.md": card, "de/README.md": card, "de/model.safetensors": WEIGHTS}
    assert hub.large == {hashlib.sha256(WEIGHTS).hexdigest(): WEIGHTS}
    assert (run / "model" / "README.md").read_text() == CARD, "the run itself stays as it is"


def test_the_command_prints_the_address_and_may_be_repeated(run: Path, hub: type[SmallHub]) -> None:
    for _ in range(2):
        done = CliRunner().invoke(app, ["push", str(run), "me/new"])
        assert done.exit_code == 0, done.output
        assert done.stdout.strip().endswith("/me/new")
    assert len(hub.repositories["me/new"]["commits"]) == 2


BAD_NAMES = ["", "name", "a/b/c", "a b/c", "me/-x", "me/x--y", "me/x.git", "../me", "me/" + "x" * 96]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_told_before_anything_else(run: Path, name: str) -> None:
    with pytest.raises(UserError, match="is no name of a repository: namespace/name"):
        mt.push(run, name)


@pytest.mark.parametrize(
    ("name", "token", "told"),
    [
        ("others/x", "hf_right", "push: others/x: the token may not write there (403: You don't have the rights to"),
        ("me/new", "hf_wrong", "push: me/new: the token may not write there (401: Invalid username or password.)"),
    ],
)
def test_what_the_hub_refuses_is_told_in_its_words(
    run: Path, hub: type[SmallHub], monkeypatch: pytest.MonkeyPatch, name: str, token: str, told: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError) as error:
        mt.push(run, name)
    assert told in str(error.value)
    assert not any(repository["commits"] for repository in hub.repositories.values())


def test_a_public_repository_is_not_taken_for_a_private_one(run: Path, hub: type[SmallHub]) -> None:
    with pytest.raises(UserError, match="--private: me/public exists and is public; nothing was uploaded"):
        mt.push(run, "me/public", private=True)
    assert not hub.repositories["me/public"]["files"]


def test_a_card_that_the_hub_cannot_read_is_told(run: Path, hub: type[SmallHub]) -> None:
    (run / "model" / "README.md").write_text("---\nlanguage: 7\n---\n")
    with pytest.raises(UserError, match=r'push: me/new: Invalid metadata.*"language" must be a string'):
        mt.push(run, "me/new")


def test_a_file_that_does_not_arrive_is_told(run: Path, hub: type[SmallHub]) -> None:
    hub.full = True
    with pytest.raises(UserError, match=r"push: me/new: Error while uploading 'de/model.safetensors'.*nothing was com"):
        mt.push(run, "me/new")
    assert not hub.repositories["me/new"]["commits"]


def test_without_a_token(run: Path, hub: type[SmallHub], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="push: no token of the Hub is known"):
        mt.push(run, "me/new")


def test_without_a_network(run: Path, hub: type[SmallHub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multitune.storage.hub.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"push: http://127.0.0.1:9 cannot be reached .* nothing was uploaded"):
        mt.push(run, "me/new")


@pytest.mark.parametrize("missing", ["results.json", "model"])
def test_a_run_that_is_not_finished(run: Path, missing: str) -> None:
    (run / missing).rename(run / "elsewhere")
    with pytest.raises(UserError, match=r"push needs a finished run with its results\.json and model/"):
        mt.push(run, "me/new")
