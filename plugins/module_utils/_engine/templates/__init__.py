# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Go's text/template language, as Docker's ``--format`` speaks it, over plain Python values.

``lexer`` cuts, ``parser`` makes the tree, ``evaluate`` walks it, ``functions`` and ``formatting`` are what templates
can call. Semantics from https://pkg.go.dev/text/template and https://pkg.go.dev/fmt; the ``docker`` program is the
tests' oracle. ``dict`` is a struct or a map (see ``Template``), ``list`` a slice, ``None`` nil.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional

from ..errors import UsageError
from .lexer import Fault


class Template:
    """A parsed template. ``option`` is the name of the option it came from, for the sentences.

    ``shapes``: names of fields and what they hold, since a Python value does not know its Go type: ``"strings"`` a map
    with values of type string, ``"map"`` any other map, ``"list"`` a slice, ``"pointer"`` something that may be absent.
    A key that a map lacks has no value; a field that a struct lacks is a mistake. A null map is ``map[]``, a null slice
    ``[]``. Raises ``UsageError`` with line and column (counted as Go does: lines from 1, columns from 0).
    """

    def __init__(self, text: str, shapes: Optional[Mapping[str, str]] = None, *, option: str = "format") -> None:
        from .parser import parse

        self.text = text
        self.shapes = shapes or {}
        self.option = option
        try:
            self.trees = parse(text)
        except Fault as fault:
            raise self._error(fault) from None

    def render(self, data: Any) -> str:
        """The text that ``data`` (dot) makes of the template. Raises ``UsageError``."""
        from .evaluate import Evaluator

        try:
            return Evaluator(self.trees, self.shapes).render(data)
        except Fault as fault:
            raise self._error(fault) from None

    def render_each(self, items: Iterable[Any]) -> list[str]:
        return [self.render(item) for item in items]

    def _error(self, fault: Fault) -> UsageError:
        before = self.text[: fault.position]
        line = before.count("\n") + 1
        column = len(before.rpartition("\n")[2].encode("utf-8", "surrogatepass"))
        where = "template: :%d:%d: " % (line, column)
        if fault.at:
            where += 'executing "%s" at <%s>: ' % (fault.template, fault.at)
        return UsageError(
            "%s: %s%s" % (self.option, where, fault.words),
            step="template",
            path=self.option,
            hint=fault.hint or None,
            details={"line": line, "column": column},
        )
