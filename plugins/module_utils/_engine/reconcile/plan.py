# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plan, then apply: a plan is a list of operations that can describe, execute and undo themselves.

``--check`` prints the description, apply executes exactly the same objects.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from ..errors import WharfError


class Operation:
    """One step. ``how``: create, remove, replace, live, start, stop, restart, pull, noise."""

    __slots__ = ("_execute", "_undo", "detail", "how", "kind", "name", "why")

    def __init__(
        self,
        how: str,
        kind: str,
        name: str,
        execute: Callable[[], Any],
        *,
        undo: Optional[Callable[[], Any]] = None,
        detail: Optional[dict[str, Any]] = None,
        why: str = "",
    ) -> None:
        self.how = how
        self.kind = kind
        self.name = name
        self.detail = {} if detail is None else detail
        self.why = why
        self._execute = execute
        self._undo = undo

    def describe(self) -> dict[str, Any]:
        """``{how, kind, name, why, detail}``: what the module returns in ``actions``."""
        return {"how": self.how, "kind": self.kind, "name": self.name, "why": self.why, "detail": self.detail}

    def execute(self) -> None:
        self._execute()

    def then(self, more: Callable[[], Any]) -> None:
        """Let ``more`` follow as part of this operation (storing the wish, waiting for health)."""
        first = self._execute

        def both() -> None:
            first()
            more()

        self._execute = both

    def undo(self) -> None:
        if self._undo is not None:
            self._undo()


class Plan:
    """Operations in order, with the before and after shown by ``--diff``. ``later``: on other objects, which follow
    when this one's lock has been let go. ``differences``: what is not as asked, and how each is dealt with. ``status``:
    in which the object was found."""

    __slots__ = ("after", "before", "differences", "later", "operations", "status", "warnings")

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.later: list[Operation] = []
        self.differences: list[dict[str, Any]] = []
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.status = ""
        self.warnings: list[str] = []

    def add(self, operation: Operation) -> None:
        self.operations.append(operation)

    @property
    def changed(self) -> bool:
        return bool(self.operations)

    def describe(self) -> list[dict[str, Any]]:
        return [operation.describe() for operation in (*self.operations, *self.later)]

    def apply_later(self) -> None:
        """Every one is tried; the first failure is raised at the end, the others are in its ``details``."""
        failures: list[WharfError] = []
        for operation in self.later:
            try:
                operation.execute()
            except WharfError as error:
                failures.append(error)
        if failures:
            failures[0].details.setdefault("also", []).extend(error.msg for error in failures[1:])
            raise failures[0]

    def result(self) -> dict[str, Any]:
        """The parts of a module's result that every resource shares."""
        out: dict[str, Any] = {
            "changed": self.changed,
            "actions": self.describe(),
            "diff": {"before": self.before, "after": self.after},
        }
        if self.differences:
            out["differences"] = self.differences
        if self.warnings:
            out["warnings"] = self.warnings
        return out

    def apply(self) -> None:
        """Execute in order. When one fails, those before it are undone in reverse order, and the failure is raised
        again; what could not be undone is added to its ``details``."""
        done: list[Operation] = []
        for operation in self.operations:
            try:
                operation.execute()
            except BaseException as error:  # an interrupt, too, must not leave half of a plan behind
                _unwind(done, error)
                raise
            done.append(operation)


def _unwind(done: list[Operation], error: BaseException) -> None:
    for operation in reversed(done):
        try:
            operation.undo()
        except WharfError as other:
            if not isinstance(error, WharfError):
                raise
            error.details.setdefault("not_undone", []).append("%s %s: %s" % (operation.how, operation.name, other.msg))
