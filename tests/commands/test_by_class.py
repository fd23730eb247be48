"""Scores of each label, from a run to the terminal and the report."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from builders import corpus, recipe
from multitune.cli import tables
from multitune.cli.layout import fitted
from multitune.data import sets
from multitune.data.corpus import Corpus, Head
from multitune.results.run import Side

ESCAPED = "<b>odd</b>"


def recipe_of(own: Corpus, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> mt.Recipe:
    monkeypatch.setitem(sets.DATASETS, "own", lambda wanted, bad: own)
    keys: dict[str, Any] = {"model": str(tiny_model), "budget": 8, "batch_size": 8, "max_length": 24, "dev_limit": 1}
    return mt.Recipe(data="own", precision="fp32", **keys)


def test_every_method_has_the_scores_of_each_label(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = replace(corpus("classification"), labels=("even", ESCAPED))
    for record in (record for split in (made.train, made.test) for records in split.values() for record in records):
        record["label"] = ESCAPED if record["label"] == "odd" else record["label"]
    found = mt.compare(recipe_of(made, tiny_model, monkeypatch), tmp_path, methods=["mixed", "stl"])
    sides: list[tuple[Side, ...]] = [("seen", "unseen"), ("seen",)]
    for run, groups in zip(found.runs, sides, strict=True):
        assert tuple(run.by_class) == groups
        for side in groups:
            examples = {label: scores["examples"] for label, scores in run.by_class[side].items()}
            assert sum(examples.values()) == sum(len(made.test[language]) for language in run.scores[side])
            recall = sum(n * run.by_class[side][label]["recall"] for label, n in examples.items())
            assert recall / sum(examples.values()) == pytest.approx(run.average[side]), (
                "the languages are alike in size"
            )
            assert all("macro_f1" in scores for scores in run.scores[side].values())

    sheets = [*tables.classes(found.runs), tables.summary(found)]
    text = "".join(fitted(sheet, None).plain for sheet in sheets)
    for word in ("label", "even", ESCAPED, "mixed", "stl", "unseen", "macro-F1, seen / unseen: mixed "):
        assert word in text
    page = (tmp_path / "report.html").read_text()
    assert "By class" in page
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert ESCAPED not in page


def test_labels_of_tasks_with_heads_of_their_own_stand_by_task(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = {"parity": Head("classification", ("even", "odd")), "number": Head("regression", ())}
    parts = {name: corpus(head.task) for name, head in heads.items()}
    train, test = ({name: getattr(part, split)["aa"] for name, part in parts.items()} for split in ("train", "test"))
    one = recipe_of(Corpus("classification", (), train, test, test, heads=heads), tiny_model, monkeypatch)
    found = mt.train(one, tmp_path / "run", overrides={"method": "mixed"})
    assert {task: set(labels) for task, labels in found.by_class.items()} == {"parity": {"even", "odd"}}


def test_kinds_without_labels_have_no_such_table(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    found = mt.train(recipe(tiny_model, tiny_panx, budget=2, dev_limit=1), tmp_path / "run")
    assert (found.by_class, tables.classes([found])) == ({}, [])
    assert "By class" not in (tmp_path / "run" / "report.html").read_text()
