"""Labels are of one type: JSON's 1, "1" and true are one class or two, and no reader of a table of labels can tell."""

import logging
from dataclasses import replace
from typing import Any

from multitune.data.bad import BadRecord
from multitune.data.fields import Check, Fields

log = logging.getLogger(__name__)


class LabelTypes:
    """The types of the labels that a data set has shown so far."""

    def __init__(self) -> None:
        self._example: dict[type, Any] = {}

    def checked(self, fields: Fields, label_field: str | None) -> Fields:
        """Fields whose records have labels of one type; ``label_field`` is what a record calls its label."""

        def with_type(name: str, check: Check) -> Check:
            return self._check(check) if fields.renamed.get(name, name) == label_field else check

        required, optional = (
            {name: with_type(name, check) for name, check in part.items()}
            for part in (fields.required, fields.optional)
        )
        return replace(fields, required=required, optional=optional)

    def _check(self, check: Check) -> Check:
        def checked(value: Any, name: str) -> Any:
            good = check(value, name)
            for label in value if isinstance(value, list) else [value]:
                self._note(label, name)
            return good

        return checked

    def _note(self, label: Any, name: str) -> None:
        kind = type(label)
        if kind in self._example:
            return
        before = next(iter(self._example.values()), None)
        if before is not None and bool in (kind, type(before)):
            raise BadRecord(
                f"{name} is {label!r}, and labels before it are such as {before!r}: of mixed types they would be "
                "classes of their own; write all as truth values, or none"
            )
        self._example[kind] = label
        if before is not None:
            log.warning(
                "labels of mixed types, numbers and texts such as %r and %r: they are taken as texts, so that 1 and "
                "'1' are one label",
                before,
                label,
            )
