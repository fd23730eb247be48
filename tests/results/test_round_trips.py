"""What is written is what is read: every type of the run folder, with any content that it allows."""

import tempfile
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject, SearchStrategy

from multitune.results import metrics, predictions
from multitune.results.clusters import Clusters
from multitune.results.comparison import Comparison, read_results
from multitune.results.json_files import JsonFile
from multitune.results.merged import Merged
from multitune.results.metrics import EVENTS, Event, event_line, read_events
from multitune.results.predictions import Prediction, prediction_line, read_predictions
from multitune.results.probes import Findings
from multitune.results.run import RunResult, Sides

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN: dict[Any, SearchStrategy[Any]] = {
    str: st.text(),
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: NUMBERS,
    NoneType: st.none(),
}
JSON = st.recursive(
    st.none() | st.booleans() | PLAIN[int] | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=5,
)


def any_of(hint: Any) -> SearchStrategy[Any]:
    """Any value of a type."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return JSON
    if origin in (Union, UnionType):
        return st.one_of(*map(any_of, parts))
    if origin is Annotated:
        return any_of(parts[0])
    if origin is list:
        return st.lists(any_of(parts[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(any_of(parts[0]), any_of(parts[1]), max_size=2)
    if origin is Sides:
        return st.builds(Sides, any_of(parts[0]), any_of(parts[0]))
    return PLAIN[hint] if hint in PLAIN else any_dataclass(hint)


@cache
def any_dataclass(kind: type) -> SearchStrategy[Any]:
    """One strategy a type, so that a type may hold itself."""
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in fields(kind)]
    return st.deferred(lambda: st.builds(kind, **{name: any_of(hints[name]) for name in names}))


@pytest.mark.parametrize("kind", [RunResult, Comparison, Findings, Clusters, Merged])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_files(kind: type[JsonFile], data: DataObject) -> None:
    written = data.draw(any_of(kind))
    with tempfile.TemporaryDirectory() as folder:
        written.write(Path(folder))
        assert kind.read(folder) == written
        if kind.NAME == RunResult.NAME:
            assert read_results(folder) == written


@given(events=st.lists(st.one_of(*map(any_of, EVENTS.values())), max_size=4))
@settings(max_examples=75, deadline=None)
def test_logs(events: list[Event]) -> None:
    assert all(event_line(event).count("\n") == 1 for event in events)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / metrics.FILE).write_text("".join(map(event_line, events)), encoding="utf-8")
        assert list(read_events(Path(folder))) == events


@given(rows=st.lists(any_of(Prediction), max_size=4))
@settings(max_examples=25, deadline=None)
def test_predictions(rows: list[Prediction]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / predictions.FILE).write_text("".join(map(prediction_line, rows)), encoding="utf-8")
        assert list(read_predictions(Path(folder))) == rows
