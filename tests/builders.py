"""What many tests are made of: tiny data, records of each kind, recipes of seconds, pictures, a small disk."""

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

import multitune as mt
from multitune import plugins
from multitune.data.corpus import Corpus, Record
from multitune.data.sets import DATASETS
from multitune.data.tabular import READERS
from multitune.errors import Interrupted
from multitune.plans import METHODS
from multitune.recipe import Recipe
from multitune.recipe_files import RecipeFile
from multitune.results.run import RunResult, Shipped, Sides, average
from multitune.tasks import TASKS
from multitune.training import trainer
from multitune.training.checkpoint import RunState
from multitune.training.loading import load_corpus, load_plan
from multitune.training.run import Run, prepare

WORDS = {
    "aa": (["ana", "bela", "coro"], ["roma", "oslo"], ["sees", "and", "the", "old"]),
    "bb": (["ivo", "juro", "kata"], ["paris", "lima"], ["vidi", "i", "taj", "star"]),
    "cc": (["mika", "nela", "oto"], ["kyoto", "accra"], ["ser", "og", "den", "gammel"]),
}


SIZES = {"aa": 60, "bb": 20}


def data_folder() -> Path:
    """The folder of real data sets, for the tests that skip without it."""
    return Path(os.environ.get("MULTITUNE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def real_data(name: str) -> Path:
    """A real data set's folder, or a skip."""
    folder = data_folder() / name
    if not folder.is_dir():
        pytest.skip(f"needs the data set {name} in {data_folder()} (MULTITUNE_DATA names another folder)")
    return folder


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of its own, mounted at a new folder; or a skip."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:  # a test that fails must not leave it for the next session to stumble over
        subprocess.run(["umount", str(folder)], check=True)


def quick(values: Iterable[Any], *every_time: Any) -> list[Any]:
    """Values of a test's parameter: those named, in every run of the tests; the others are make check's."""
    return [value if value in every_time else pytest.param(value, marks=pytest.mark.check) for value in values]


def sentences(language: str, count: int, seed: int) -> str:
    """``count`` sentences of a language in PAN-X's format."""
    people, places, others = WORDS[language]
    draw = random.Random(f"{language} {seed}")
    blocks = []
    for _ in range(count):
        lines = [f"{draw.choice(people)}\tB-PER", f"{draw.choice(people)}\tI-PER", f"{draw.choice(others)}\tO"]
        lines += [f"{draw.choice(places)}\tB-LOC"] + [f"{draw.choice(others)}\tO" for _ in range(draw.randrange(4))]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


OPTIONS: dict[str, dict[str, Any]] = {
    "mtl": {"tasks_per_step": 2},
    "sequential_reptile": {"inner_steps": 7},
    "lookahead": {"inner_steps": 7, "inner_steps_end": 3, "outer_optimizer": "nesterov", "inner_state": "reset"},
    "reptile": {"inner_steps": 4, "outer_lr": 1.0, "outer_lr_end": 0.5, "inner_state": "carry"},
    "fish": {"slow_device": "cpu"},
    "gradvac": {"groups": "all_layer"},
    "recadam": {"t0": 6},
}


def recipe(tiny_model: Path, tiny_panx: Path, method: str = "mtl", **keys: Any) -> Recipe:
    """A run of seconds."""
    defaults: dict[str, Any] = {"budget": 40, "batch_size": 8, "learning_rate": 1e-2, "precision": "fp32"}
    given = {"model": str(tiny_model), "data": "panx", "path": str(tiny_panx), "method": method}
    return Recipe(**(given | {"options": OPTIONS.get(method, {})} | defaults | keys))


def prepared(one: Recipe) -> Run:
    """A recipe's run before its first step, with everything loaded."""
    return prepare(one, load_corpus(one), load_plan(one))


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def stop_after(gradients: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process SIGTERM, as a pre-empted machine does, in the middle of the step that passes ``gradients``."""
    step = trainer.Trainer._step

    def wrapped(self: trainer.Trainer) -> None:
        step(self)
        if self._now.gradients >= gradients:
            signal.raise_signal(signal.SIGTERM)
            monkeypatch.setattr(trainer.Trainer, "_step", step)

    monkeypatch.setattr(trainer.Trainer, "_step", wrapped)


def assert_resumes(one: Recipe, folder: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> RunResult:
    """A run that is stopped after so many gradients, and resumed, ends with the bits of one that never stopped.

    Returns:
        the result of the latter, whose folder is ``whole``; the other's is ``parts``.
    """
    whole = mt.train(one, folder / "whole")
    stop_after(after, monkeypatch)
    with pytest.raises(Interrupted):
        mt.train(one, folder / "parts")
    resumed = mt.train(one, folder / "parts", resume=True)
    assert (resumed.seen, resumed.unseen, resumed.drift) == (whole.seen, whole.unseen, whole.drift)
    assert shipped_files(folder / "parts") == shipped_files(folder / "whole")
    return whole


def shipped_files(run: Path) -> dict[str, bytes]:
    """What a run ships, by its place in the run's folder."""
    files = (file for kind in ("model", "adapter") for file in (run / kind).rglob("*") if file.is_file())
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def comparison_file(tiny_model: Path, tiny_panx: Path) -> RecipeFile:
    run = recipe(tiny_model, tiny_panx, budget=30).model_dump(mode="json")
    del run["method"], run["options"]
    methods: dict[str, dict[str, Any]] = {
        "mtl": {"learning_rate": 5e-3},
        "sequential_reptile": {"options": OPTIONS["sequential_reptile"]},
    }
    return RecipeFile(run=run, methods=methods, source="tiny.yaml")


PIXELS = {
    "1": np.array([[0, 255], [255, 0]], dtype=np.uint8),
    "L": np.array([[0, 7], [255, 9]], dtype=np.uint8),
    "RGB": np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
}


def png(mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS[mode]).convert(mode).save(file, "png")
    return file.getvalue()


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def run_result(scores: Mapping[str, Mapping[str, float | None]], **keys: Any) -> RunResult:
    """A finished run with these scores in the languages that it has seen; the first metric is the main one."""
    metric = next(metric for own in scores.values() for metric in own)
    defaults: dict[str, Any] = {
        "method": "mtl",
        "seed": 0,
        "budget": 8,
        "metric": metric,
        "unseen": {},
        "average": Sides(seen=average(scores, metric), unseen=None),
        "drift": 0.0,
        "seconds": 1.0,
        "peak_memory_bytes": 1,
        "shipped": Shipped(select="last", gradients=8, dev=None),
        "dropped": {},
        "versions": {},
    }
    return RunResult(seen={language: dict(own) for language, own in scores.items()}, **(defaults | keys))


LANGUAGES = ("aa", "bb")


def corpus(kind: str) -> Corpus:
    """Sixty records to learn from in each of two languages, and a dozen others in three."""
    made = {language: [RECORDS[kind](language, n) for n in range(72)] for language in WORDS}
    test = {language: records[60:] for language, records in made.items()}
    train = {language: made[language][:60] for language in LANGUAGES}
    return Corpus(kind, LABELS.get(kind, ()), train, {language: test[language] for language in LANGUAGES}, test)


def words(language: str, n: int) -> list[str]:
    """Words of a language, with one name of a place among them."""
    people, places, others = WORDS[language]
    return [people[n % 3], others[n % 4], places[n % 2], others[n // 2 % 4], people[n // 3 % 3]]


def classification(language: str, n: int) -> Record:
    text = words(language, n)
    return {"text": " ".join(text[:3]), "text_pair": " ".join(text[3:]), "label": ("even", "odd")[n % 2]}


def multi_label(language: str, n: int) -> Record:
    """A label for each of two properties of the number, so that a record may have none."""
    labels = [name for name, is_so in (("odd", n % 2), ("third", n % 3 == 0)) if is_so]
    text = words(language, n)
    return {"text": f"{text[0]} {WORDS[language][2][n % 2]}", "labels": labels}


def ranking(language: str, n: int) -> Record:
    """Each text and its positive are about the same two words."""
    people, places, others = WORDS[language]
    return {"text": f"{people[n % 3]} {others[n % 4]}", "positive": f"{others[n % 4]} {places[n % 2]} {people[n % 3]}"}


def regression(language: str, n: int) -> Record:
    return {"text": " ".join(words(language, n)), "label": float(n % 2)}


def question_answering(language: str, n: int) -> Record:
    text = words(language, n)
    before = sum(len(word) + 1 for word in text[:2])
    answers = {"text": [text[2]], "answer_start": [before]}
    return {"id": f"{language}{n}", "context": " ".join(text), "question": text[1], "answers": answers}


def pos_tagging(language: str, n: int) -> Record:
    return {"tokens": words(language, n), "tags": ["NAME", "WORD", "PLACE", "WORD", "NAME"]}


def masked(language: str, n: int) -> Record:
    """Longer and shorter, but each place always has the same word."""
    return {"text": " ".join((words(language, 0) * 3)[: 4 + n % 12])}


def translation(language: str, n: int) -> Record:
    first, *rest = words(language, n % 6)
    return {"source": " ".join([first, *rest]), "target": f"{' '.join(rest)}, {first}!", "target_language": language}


def image(language: str, n: int) -> Record:
    """Bright above or below, in colours or without."""
    points = np.zeros((28, 28) if n % 3 else (28, 28, 3), dtype=np.uint8)
    points[14 * (n % 2) :][: 10 + n % 5] = 200
    return {"image": points, "label": ("above", "below")[n % 2]}


RECORDS = {
    "classification": classification,
    "image_classification": image,
    "masked_language_modelling": masked,
    "multi_label": multi_label,
    "pos_tagging": pos_tagging,
    "question_answering": question_answering,
    "ranking": ranking,
    "regression": regression,
    "translation": translation,
}
LABELS: dict[str, tuple[str, ...]] = {
    "classification": ("even", "odd"),
    "image_classification": ("above", "below"),
    "multi_label": ("odd", "third"),
    "pos_tagging": ("NAME", "PLACE", "WORD"),
}
"""Of the kinds that have labels."""


def run_card(run: Path, monkeypatch: pytest.MonkeyPatch, model: str = "model") -> str:
    """Run the Python of a model's card beside its run, and return the card."""
    text = (run / model / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    with monkeypatch.context() as there:
        there.chdir(run)
        exec(compile(code, "README.md", "exec"), {})
    return text


@contextmanager
def names_restored() -> Iterator[None]:
    """Afterwards the dicts of kinds, methods, data sets and readers are as they were before, and plugins not loaded."""
    dicts: tuple[dict[str, Any], ...] = (TASKS, METHODS, DATASETS, READERS)
    before = [dict(names) for names in dicts]
    plugins.load.cache_clear()
    try:
        yield
    finally:
        for names, own in zip(dicts, before, strict=True):
            names.clear()
            names.update(own)
        plugins.load.cache_clear()


def accept(state: RunState) -> None:
    """Restore nothing."""


def in_its_own_process(file: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a test file as a program; it may import this one."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    return subprocess.run([sys.executable, file, *map(str, words)], env=environment, capture_output=True, text=True)


def numbers(state: Any) -> int:
    """Fractions in the larger tensors of a nested state."""
    if isinstance(state, Tensor):
        return state.numel() if state.ndim and state.is_floating_point() else 0
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(numbers, parts))
