"""Tasks with heads of their own around one encoder: what is shared, what trains, what ships."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import multitune as mt
from builders import LABELS, corpus, quick, stop_after
from multitune import tasks
from multitune.data import sets
from multitune.data.corpus import Corpus, Head
from multitune.errors import Interrupted, UserError
from multitune.evaluation.scoring import read_statistics
from multitune.models import encoder as encoders
from multitune.models.encoder import Encoder
from multitune.plans import METHODS
from multitune.recipe import Recipe, Replay
from multitune.tasks import TASKS
from multitune.training.loading import load_plan
from multitune.training.run import prepare

HEADS = {
    "even": Head("classification", LABELS["classification"]),
    "answers": Head("question_answering", ()),
    "number": Head("regression", ()),
    "parts": Head("pos_tagging", LABELS["pos_tagging"]),
    "masked": Head("masked_language_modelling", ()),
}


def glue_like(*names: str) -> Corpus:
    """Tasks of several kinds, on words of the same language."""
    heads = {name: HEADS[name] for name in names or HEADS}
    parts = {name: corpus(head.task) for name, head in heads.items()}
    train, test = ({name: getattr(part, split)["aa"] for name, part in parts.items()} for split in ("train", "test"))
    return Corpus("classification", (), train, test, test, heads=heads)


def recipe(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, *names: str, **keys: Any) -> Recipe:
    found = glue_like(*names)
    monkeypatch.setitem(sets.DATASETS, "tasks", lambda wanted, bad: found)
    given: dict[str, Any] = {"model": str(tiny_model), "data": "tasks", "method": "mtl", "budget": 20, "batch_size": 8}
    return Recipe(**(given | {"learning_rate": 1e-2, "max_length": 24, "precision": "fp32"} | keys))


def loaded(tiny_model: Path, *names: str) -> Encoder:
    return encoders.load(str(tiny_model), tasks.of(glue_like(*names)), layers=None, dropout=0.0, seed=0)


def test_tasks_share_the_encoder_and_nothing_else(tiny_model: Path) -> None:
    encoder = loaded(tiny_model)
    names = dict(encoder.parameters())
    shared = {name for name in names if name.startswith("shared.")}
    assert set(names) == shared | set(encoder.own_heads)
    bases = {id(encoder.head(task).base_model) for task in HEADS}
    assert len(bases) == 1
    pretrained = {name for name, _ in encoder.pretrained_parameters()}
    assert pretrained < shared
    assert shared - pretrained == {"shared.pooler.dense.weight", "shared.pooler.dense.bias"}
    decoder = encoder.head("masked").get_output_embeddings()
    assert decoder.weight is encoder.model.get_input_embeddings().weight, "as masked language models have it"


def test_a_head_computes_what_its_model_would_alone(tiny_model: Path) -> None:
    encoder = loaded(tiny_model, "even", "parts")
    with torch.no_grad():
        for task in ("even", "parts"):
            alone = loaded(tiny_model, task)
            for part in ("weight", "bias"):
                own = encoder.head(task).get_parameter(f"classifier.{part}")
                own.copy_(alone.head(task).get_parameter(f"classifier.{part}"))
            inputs = encoder.on_device(dict(encoder.tokenizer("ana sees roma", return_tensors="pt")))
            with encoder.evaluating(), alone.evaluating():
                torch.testing.assert_close(encoder.head(task)(**inputs).logits, alone.head(task)(**inputs).logits)


def test_a_head_begins_alike_whichever_others_there_are(tiny_model: Path) -> None:
    together, alone = loaded(tiny_model).head("number"), loaded(tiny_model, "number").head("number")
    for part in ("weight", "bias"):
        name = f"classifier.{part}"
        assert torch.equal(together.get_parameter(name), alone.get_parameter(name))


def test_a_run_ships_a_model_for_each_head(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("even", "answers", "number", "parts")
    one = recipe(tiny_model, monkeypatch, *names, budget=320, options={"tasks_per_step": 2})
    result = mt.train(one, tmp_path / "run")
    assert list(result.seen) == list(names)
    assert result.metric == "score"
    for name, scores in result.seen.items():
        assert scores["score"] == scores[TASKS[HEADS[name].task].metric]
        kind = TASKS[HEADS[name].task].auto_model
        _, info = kind.from_pretrained(tmp_path / "run" / "model" / name, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"], "another head's pooler"
    assert result.average["seen"] == pytest.approx(np.mean([scores["score"] for scores in result.seen.values()]))
    for name in ("answers", "parts"):
        assert (result.seen[name]["score"] or 0) > 90
    assert mt.evaluate(tmp_path / "run") == {name: pytest.approx(scores) for name, scores in result.seen.items()}
    task = tasks.of(glue_like(*names))
    rows = read_statistics(tmp_path / "run")
    assert {name: task.scores_of(name, row) for name, row in rows.items()} == result.seen


@pytest.mark.parametrize("method", quick(METHODS, "mtl", "gradvac", "gradnorm", "sequential_reptile"))
def test_every_method_trains_heads(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    one = recipe(tiny_model, monkeypatch, "even", "number", method=method, budget=4, dev_limit=4)
    result = mt.train(one, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run" / "model").iterdir()} == {"README.md", "even", "number"}
    assert mt.evaluate(tmp_path / "run") == {name: pytest.approx(scores) for name, scores in result.seen.items()}


def test_a_batch_of_several_heads_is_the_mean_over_its_examples(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(tiny_model, monkeypatch, "even", "number", method="mixed", batch_size=5, dropout=0.0)
    run = prepare(one, glue_like("even", "number"), load_plan(one))
    drawn: dict[str, Any] = {}
    while len(drawn) < 2:  # batches are of like length, and so are most often of one task
        together, drawn = run.loss(0), next(iter(run.batches.values())).newest()
    alone = []
    for name, batch in drawn.items():
        for row in batch["rows"]:
            inputs, targets = run.heads.task(name).collate([run.examples[name][row]], run.encoder.pad_id)
            output = run.encoder.head(name)(**run.encoder.training_inputs(inputs))
            alone.append(run.heads.task(name).loss(output, targets))
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_gradients_of_a_head_come_from_its_task_alone(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = recipe(tiny_model, monkeypatch, dropout=0.0)
    run = prepare(one, glue_like(), load_plan(one))
    for number in range(len(run.languages)):
        run.encoder.model.zero_grad()
        run.loss(number).backward()
        touched = {own for own in run.encoder.own_heads if run.encoder.model.get_parameter(own).grad is not None}
        assert touched
        assert all(own.startswith(f"head{number}.") for own in touched)


def test_resume_restores_heads(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = recipe(tiny_model, monkeypatch, budget=24, validate_every=6, dropout=0.1)
    whole = mt.train(one, tmp_path / "whole")
    stop_after(9, monkeypatch)
    with pytest.raises(Interrupted):
        mt.train(one, tmp_path / "parts")
    resumed = mt.train(one, tmp_path / "parts", resume=True)
    assert (resumed.seen, resumed.drift) == (whole.seen, whole.drift)


def test_a_comparison_of_heads(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = recipe(tiny_model, monkeypatch, "even", "number", budget=8)
    found = mt.compare(one, tmp_path, methods=["mtl", "gradvac"])
    assert found.metric == "score"
    interval = json.loads((tmp_path / "results.json").read_text())["summary"]["gradvac"]["seen"]
    assert interval["low"] <= interval["mean"] <= interval["high"]


NAMES = ("main", "replay", "shared", "keys", "training", "a.b", "decoder", "embedding", "replay-2")


@pytest.mark.parametrize(("method", "names"), [("mtl", NAMES), ("stl", ("main", "a.b"))])
def test_no_name_of_a_task_has_a_meaning(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, method: str, names: tuple[str, ...]
) -> None:
    """Words of ours, of torch and of the rules that tell weights apart; but for stl beside a replay."""
    part, head = corpus("classification"), HEADS["even"]
    train, test = ({name: getattr(part, split)["aa"] for name in names} for split in ("train", "test"))
    found = Corpus(head.task, head.labels, train, test, test, heads=dict.fromkeys(names, head))
    one = recipe(tiny_model, monkeypatch, method=method, budget=2 * len(names), dev_limit=4)
    monkeypatch.setitem(sets.DATASETS, "tasks", lambda wanted, bad: found)
    if method != "stl":
        one = one.model_copy(update={"replay": Replay(share=0.2)})
    result = mt.train(one, tmp_path / "run")
    assert list(result.seen) == list(names)
    assert {path.name for path in (tmp_path / "run" / "model").iterdir()} == {"README.md", *names}
    assert mt.evaluate(tmp_path / "run") == {name: pytest.approx(scores) for name, scores in result.seen.items()}


def test_a_replay_has_a_name_that_no_language_has(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = corpus("classification")
    named = {"replay": part.train["aa"], "main": part.train["bb"]}
    found = Corpus("classification", part.labels, named, named, {**named, "replay-2": part.test["cc"]})
    one = recipe(tiny_model, monkeypatch).model_copy(update={"replay": Replay(share=0.2)})
    run = prepare(one, found, load_plan(one))
    assert run.languages == ("replay", "main", "replay-3")
    assert len(run.examples["replay"]) == len(named["replay"])
    numbers = [run.heads.number(language) for language in ("replay", "main", "replay-2", "replay-3")]
    assert numbers == [0, 0, 0, 1]


def test_rows_are_trimmed_where_every_head_allows_it() -> None:
    assert tasks.of(glue_like("even", "number")).can_trim
    assert not tasks.of(glue_like("even", "masked")).can_trim


def test_each_task_ships_the_adapters_with_its_own_head(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mt.train(recipe(tiny_model, monkeypatch, "even", "parts", lora={"rank": 2, "targets": ["value"]}), tmp_path / "run")
    heads = {}
    for name in ("even", "parts"):
        with safe_open(tmp_path / "run" / "adapter" / name / "adapter_model.safetensors", framework="pt") as file:
            names = {key.removeprefix("base_model.model.") for key in file.keys()}  # noqa: SIM118
        adapters = {key for key in names if key.startswith("bert.encoder.")}
        assert len(adapters) == 2 * 2
        heads[name] = names - adapters
    assert heads["parts"] == {"classifier.weight", "classifier.bias"}
    assert heads["even"] == heads["parts"] | {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}


def test_frozen_encoders_leave_nothing_to_combine_or_to_probe(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These heads come without a pooler, so that the tasks share no weight that trains."""
    keys: dict[str, Any] = {"freeze": ["encoder"], "probe_every": 5}
    with pytest.raises(UserError, match="freeze: the tasks share no weights that train"):
        mt.train(recipe(tiny_model, monkeypatch, "answers", "parts", method="pcgrad", **keys), tmp_path / "combined")
    mt.train(recipe(tiny_model, monkeypatch, "answers", "parts", method="sequential", **keys), tmp_path / "alone")
    events = [json.loads(line)["event"] for line in (tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()]
    assert "validate" in events
    assert "probe" not in events
