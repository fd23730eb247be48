"""Tables: what comes from files is text, nothing is cut at any width, and programs get the values behind the text."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import pytest
from rich.cells import cell_len

from builders import run_result
from multitune.cli import data_tables, method_table, output, probe_tables, tables
from multitune.cli.layout import fitted
from multitune.cli.sheet import Column, Number, Sheet, Words
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus
from multitune.data.records.balance import balance
from multitune.evaluation.lengths import Lengths
from multitune.plans import listed
from multitune.results import comparison as compared
from multitune.results.comparison import ComparedRun, Comparison, FailedRun, Interval, Pair
from multitune.results.probes import (
    BeforeAfter,
    Drift,
    Findings,
    LayeredSimilarity,
    LayerSimilarity,
    ProbedRun,
    Retrieval,
)
from multitune.results.run import RunResult, Sides, average
from multitune.tasks import TASKS

HOSTILE = {
    "colour": "\x1b[31mred",
    "title": "\x1b]0;owned\x07",
    "C1": "\x9b31mred",
    "markup": "[bold]b[/bold]",
    "link": "[link=https://example.com]x[/link]",
    "line feed": "a\nb",
}
WIDTHS = [80, 100, 120, 200]
TWELVE = ["ar", "de", "en", "es", "fi", "hi", "ja", "ru", "sw", "th", "tr", "zh"]


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_json_on_stdout_drives_no_terminal(name: str) -> None:
    text = output.json_text({name: name}, indent=2)
    assert json.loads(text) == {name: name}
    assert all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_labels_and_names_are_shown_as_text(name: str) -> None:
    rows = [{"text": "a", "label": name}]
    corpus = Corpus("classification", (name,), {name: rows}, {name: rows}, {name: rows}, skipped={name: 1})
    labels = data_tables.labels(balance(corpus, TASKS))
    sheets = (data_tables.counts(corpus, {}, 128), labels, tables.scores({name: {"f1": 1.0}}))
    shown = "".join(fitted(sheet, 200).plain for sheet in sheets)
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)
    expected = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert shown.count(expected) >= 4


def result(method: str, seen: float, unseen: float, languages: Sequence[str] = TWELVE, **keys: object) -> RunResult:
    """A run whose scores differ a little from language to language."""
    seen_scores = {k: {"accuracy": seen + n / 3, "macro_f1": seen - n} for n, k in enumerate(languages)}
    unseen_scores = {f"{k}-x": {"accuracy": unseen - n / 7, "macro_f1": 1.0} for n, k in enumerate(languages)}
    averages = Sides(seen=average(seen_scores, "accuracy"), unseen=average(unseen_scores, "accuracy"))
    cost = {"steps": 12345, "seconds": 4321.0, "peak_memory_bytes": 34 << 30, "drift": 123.4, "step_seconds": 4000.0}
    return run_result(seen_scores, method=method, unseen=unseen_scores, average=averages, **cost | keys)


METHODS = {"mtl": (76.4, 55.0), "sequential_reptile": (93.8, 67.6), "gradvac": (100.0, 60.0)}


def comparison(given: Mapping[str, float] | None = None, methods: Sequence[str] = tuple(METHODS)) -> Comparison:
    point: compared.Point = dict(given or {})
    runs = [ComparedRun(**vars(result(k, *METHODS[k])), folder=k, grid=point) for k in methods]
    both = Sides[Interval | None](seen=Interval(-100.0, -100.0, -99.9), unseen=Interval(12.7, 11.4, 13.8))
    own = {k: Sides[Interval | None](Interval(93.8, 92.8, 100.0), Interval(67.6, 66.7, 68.6)) for k in methods}
    gains = {k: both for k in methods if k != "mtl"}
    chosen = dict.fromkeys(methods, point)
    said = "paired bootstrap over test examples"
    return Comparison(runs, chosen, "accuracy", "mtl", own, gains, {}, said)


def paper() -> compared.Beside:
    row = {k: Pair(93.8, 94.1) for k in METHODS}
    return compared.Beside("table2", "NER of 4 languages", "f1", dict.fromkeys(TWELVE, row), row, row)


def findings() -> Findings:
    cosines = [[1.0 if a == b else -0.12 for a in TWELVE] for b in TWELVE]
    layers = {f"layer.{n}": LayerSimilarity(0.12, cosines) for n in range(3)}
    families: list[str | None] = [None] * len(TWELVE)
    alike = {"languages": TWELVE, "families": families, "cosine": 0.1, "norms": [1.0] * 12, "losses": [1.0] * 12}
    similarity = LayeredSimilarity(**alike, cosines=cosines, layers=layers)  # type: ignore[arg-type]
    skill = dict.fromkeys([*TWELVE, "yo"], 98.76)
    ends = Sides(BeforeAfter(98.76, 12.34), BeforeAfter(98.76, None))
    retrieval = Retrieval(pretrained=dict(skill), tuned=dict(skill), average=ends, pairs="CLDR", size={})
    return Findings(
        run=ProbedRun("mtl", 0, 8),
        seen=TWELVE,
        unseen=["yo"],
        gradient_similarity=similarity,
        proximity=None,
        masked_lm=None,
        retrieval=retrieval,
        drift=Drift(12.34, {f"layer.{n}": 12.34 for n in range(3)}),
        notes=["masked_lm: a model ships no head for masked tokens; --mlm-head takes a trained one"],
        seconds={},
        versions={},
    )


def data_sheets() -> list[Sheet]:
    rows = [{"text": "a", "label": "PlayMusicInTheLivingRoom"}] * 123
    by_language = dict.fromkeys(TWELVE, rows)
    corpus = Corpus("classification", ("PlayMusicInTheLivingRoom",), by_language, by_language, by_language)
    lengths = dict.fromkeys(TWELVE, Lengths(123.4, 345.0, 12.3))
    bad = BadRecords()
    bad.add("train-aa.jsonl:3", "a long line of words on what is wrong with it, " * 3)
    labels = data_tables.labels(balance(corpus, TASKS))
    return [data_tables.counts(corpus, lengths, 128), labels, data_tables.bad(bad)]


def sheets() -> dict[str, Sheet]:
    runs = [result(k, *v) for k, v in METHODS.items()]
    point = {"learning_rate": 0.0001, "options.outer_lr": 0.1}
    seeds = [result(k, *v, seed=n) for n in range(5) for k, v in METHODS.items()]
    plain = [
        tables.runs(runs),
        tables.summary(comparison()),
        tables.points(comparison(point)),
        tables.languages(runs, "mtl"),
        tables.languages(seeds, "mtl"),
        tables.beside(paper()),
        tables.scores(runs[0].seen | runs[0].unseen, runs[0]),
        *(probe_tables.probes(findings())),
        probe_tables.retention(findings()),
        *data_sheets(),
        method_table.methods(listed()),
    ]
    at_a_point = tables.summary(comparison(point))
    return {f"{n}-{sheet.name}": sheet for n, sheet in enumerate([*plain, at_a_point])}


SHEETS = sheets()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("sheet", SHEETS.values(), ids=SHEETS)
def test_nothing_is_cut_at_any_width(sheet: Sheet, width: int) -> None:
    shown = fitted(sheet, width).plain
    assert max(map(cell_len, shown.splitlines())) <= width
    assert all(line == line.rstrip() for line in shown.splitlines())
    words = shown.split()
    costs_are_left_out = "a wider terminal shows" in shown
    for row in sheet.rows:
        for column, cell in zip(sheet.columns, row, strict=True):
            if not (column.cost and costs_are_left_out):
                assert all(word in words for line in cell.below() for word in line.split())


@pytest.mark.parametrize("sheet", SHEETS.values(), ids=SHEETS)
def test_without_a_terminal_a_row_is_a_line(sheet: Sheet) -> None:
    shown = fitted(sheet, None).plain
    assert all(line == line.rstrip() for line in shown.splitlines())
    if not any(column.folds for column in sheet.columns):
        assert len(shown.splitlines()) == 2 + len(sheet.rows) + len(sheet.breaks - {0, len(sheet.rows)}) + len(
            sheet.notes
        )
        for row in sheet.rows:
            texts = [cell.beside() for cell, column in zip(row, sheet.columns, strict=True) if not column.once]
            assert any(all(text in line for text in texts) for line in shown.splitlines())


def test_each_line_of_a_comparison_begins_with_the_methods_whole_name() -> None:
    for width in range(80, 200):
        shown = fitted(tables.summary(comparison()), width).plain
        for method in METHODS:
            assert re.search(rf"^  {method} +[0-9]", shown, re.MULTILINE)


def test_at_80_columns_intervals_go_below_and_columns_of_cost_go() -> None:
    sheet = tables.summary(comparison(methods=["mtl", "gradvac"]))
    wide, narrow = fitted(sheet, 200).plain, fitted(sheet, 80).plain
    assert "93.8 [92.8, 100.0]" in wide
    assert "peak GiB" in wide.splitlines()[0]
    assert "93.8 [92.8, 100.0]" not in narrow
    assert "[92.8, 100.0]" in narrow
    assert "a wider terminal shows more: " in narrow
    assert "peak GiB" in narrow.splitlines()[-1]


def test_what_is_too_wide_goes_on_below_under_the_same_names() -> None:
    columns = [Column("language", text=True), *(Column(f"method-{n}") for n in range(20))]
    sheet = Sheet("wide", columns)
    for language in ("de", "言語"):
        sheet.add(language, *(Number(float(n), 1) for n in range(20)))
    lines = fitted(sheet, 80).plain.splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert sum(line.startswith("  言語") for line in lines) > 1
    assert " ".join(lines).count("method-") == 20


def test_a_name_wider_than_the_terminal_stays_whole() -> None:
    sheet = Sheet("wide", [Column("method", text=True), Column("score")])
    sheet.add("m" * 100, Number(1.0))
    assert "m" * 100 in fitted(sheet, 80).plain


def test_languages_stand_by_side_and_gain() -> None:
    first, second = (run_result({"a": {"f1": 50.0}, "b": {"f1": 50.0}, "c": {"f1": 50.0}}) for _ in range(2))
    second = run_result({"a": {"f1": 51.0}, "b": {"f1": 53.0}, "c": {"f1": None}}, method="reptile")
    both = [first, second]
    for run in both:
        run.unseen["z"] = {"f1": 90.0}
    records = tables.languages(both, "mtl").records()
    assert [(row["side"], row["language"], row["gain"]) for row in records] == [
        ("seen", "b", 3.0),
        ("seen", "a", 1.0),
        ("seen", "c", None),
        ("unseen", "z", 0.0),
    ]
    alone = tables.languages([second]).records()
    assert [row["language"] for row in alone] == ["b", "a", "c", "z"]
    assert "gain" not in alone[0]


def test_programs_get_the_values_behind_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    at_a_point = comparison({"learning_rate": 0.1})
    both = [tables.summary(at_a_point), tables.languages(at_a_point.runs, "mtl")]
    output.show(both, as_json=True, as_csv=False)
    told = json.loads(capsys.readouterr().out)
    row = told["summary"]["rows"][1]
    assert list(told) == ["summary", "languages"]
    estimate = asdict(Interval(93.8, 92.8, 100.0))
    assert (row["seen_accuracy"], row["seen_accuracy_low"], row["seen_accuracy_high"]) == tuple(estimate.values())
    assert (row["method"], row["learning_rate"]) == ("sequential_reptile", 0.1)
    assert row["ms_per_gradient"] == pytest.approx(4000e3 / 8)
    assert told["summary"]["rows"][0]["seen_gain"] is None
    assert told["summary"]["notes"] == both[0].notes

    output.show(both, as_json=False, as_csv=True)
    parts = capsys.readouterr().out.split("\n\n")
    assert [next(iter(csv.DictReader(io.StringIO(part)))).keys() for part in parts] == [
        sheet.records()[0].keys() for sheet in both
    ]


def test_the_row_of_a_method_that_failed_stands_under_the_same_heads(capsys: pytest.CaptureFixture[str]) -> None:
    """An estimate has columns for its interval, which ``failed`` in its place does not have."""
    failed = FailedRun("pcgrad", 0, "pcgrad-seed0", {"learning_rate": 0.1}, "no memory")
    at_a_point = replace(comparison({"learning_rate": 0.1}), failed=[failed])
    sheet = tables.summary(at_a_point)
    output.show([sheet], as_json=False, as_csv=True)
    *_, first, last = csv.reader(io.StringIO(capsys.readouterr().out))
    assert len(first) == len(last)
    output.show([sheet], as_json=False, as_csv=True)
    *_, row = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert {name: value for name, value in row.items() if value} == {"method": "pcgrad", "seen_accuracy": "failed"}


def test_a_sheet_without_rows_has_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    output.show([Sheet("empty", [Column("a"), Column("b")])], as_json=False, as_csv=True)
    assert capsys.readouterr().out == "a,b\n"


@pytest.mark.parametrize(("columns", "wide"), [("80", False), ("200", True), (None, True)])
def test_columns_say_how_wide_a_terminal_is(
    columns: str | None, wide: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    output.show([tables.summary(comparison())], as_json=False, as_csv=False)
    assert ("93.8 [92.8, 100.0]" in capsys.readouterr().out) is wide


def test_words_that_belong_to_a_name_go_below_it() -> None:
    assert Words("mtl", {"budget": 8}).beside() == "mtl budget=8"
    assert Words("mtl", {"budget": 8}).below() == ["mtl", "budget=8"]
