# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Walks the trees of a template with its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, Optional

from .formatting import MAX_OUTPUT, output
from .functions import TABLE, Signature, to_json
from .lexer import Fault, go_quote
from .nodes import (
    Action,
    Branch,
    Call,
    Chain,
    Command,
    Dot,
    Field,
    Function,
    Jump,
    Literal,
    Node,
    Pipeline,
    Text,
    Variable,
)
from .values import NO_VALUE, GoMap, SliceMap, StringMap, items, shaped, truth, type_name

MAX_CALLS = 40  # templates that call each other: Go lets 100,000, Python's stack does not
MAX_STEPS = 2_000_000  # a range over a number can be endless for all practical purposes
_TYPES: dict[str, type] = {"string": str, "int": int}
_ABSENT = object()


class _Left(Exception):
    """``break`` or ``continue``."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class Evaluator:
    def __init__(self, trees: Mapping[str, list[Node]], shapes: Mapping[str, str]) -> None:
        self._trees = trees
        self._shapes = dict(shapes)
        self._out: list[str] = []
        self._size = 0
        self._steps = 0
        self._calls = 0
        self._name = ""
        self._variables: list[list[Any]] = []

    def render(self, data: Any) -> str:
        """Raises ``Fault`` with position and expression."""
        self._variables = [["$", data]]
        self._list(data, self._trees[""])
        return "".join(self._out)

    # -- nodes -----------------------------------------------------------------------------------------------------

    def _list(self, dot: Any, nodes: list[Node]) -> None:
        for node in nodes:
            self._steps += 1
            if self._steps > MAX_STEPS:
                self._fail(node, "the template takes more than %d steps" % MAX_STEPS)
            self._node(dot, node)

    def _node(self, dot: Any, node: Node) -> None:
        if isinstance(node, Text):
            self._write(node, node.text)
        elif isinstance(node, Action):
            value = self._pipeline(dot, node.pipeline)
            if not node.pipeline.names:
                self._write(node, output(value))
        elif isinstance(node, Branch):
            known = len(self._variables)
            try:
                if node.kind == "range":
                    self._range(dot, node)
                else:
                    self._condition(dot, node)
            finally:
                del self._variables[known:]
        elif isinstance(node, Call):
            self._template(dot, node)
        elif isinstance(node, Jump):
            raise _Left(node.source)

    def _write(self, node: Node, text: str) -> None:
        self._out.append(text)
        self._size += len(text)
        if self._size > MAX_OUTPUT:
            self._fail(node, "the template makes more than %d bytes" % MAX_OUTPUT)

    def _condition(self, dot: Any, node: Branch) -> None:
        value = self._pipeline(dot, node.pipeline)
        if truth(value):
            self._list(value if node.kind == "with" else dot, node.body)
        elif node.otherwise is not None:
            self._list(dot, node.otherwise)

    def _range(self, dot: Any, node: Branch) -> None:
        pipeline = node.pipeline
        value = self._pipeline(dot, pipeline, declare=False)
        pairs: Any = ()
        if isinstance(value, list):
            pairs = ((at, NO_VALUE if item is None else item) for at, item in enumerate(value))
        elif isinstance(value, dict):
            pairs = ((key, self._of(value, key)) for key, _item in items(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            if len(pipeline.names) > 1:
                self._fail(node, "can't use %d to iterate over more than one variable" % value, at=pipeline)
            pairs = ((number, number) for number in range(value))
        elif value is not None and value is not NO_VALUE:
            self._fail(node, "range can't iterate over %s" % output(value), at=pipeline)
        empty = True
        known = len(self._variables)
        for key, item in pairs:
            empty = False
            self._steps += 1
            self._bind(pipeline, key, item)
            try:
                self._list(item, node.body)
            except _Left as left:
                if left.word == "break":
                    break
            finally:
                del self._variables[known:]
            if self._steps > MAX_STEPS:
                self._fail(node, "the template takes more than %d steps" % MAX_STEPS, at=pipeline)
        if empty and node.otherwise is not None:
            self._list(dot, node.otherwise)

    def _bind(self, pipeline: Pipeline, key: Any, item: Any) -> None:
        """One variable is the element, two are index or key and element."""
        values = (item,) if len(pipeline.names) == 1 else (key, item)
        for name, value in zip(pipeline.names, values):
            if pipeline.assigns:
                self._assign(name, value)
            else:
                self._variables.append([name, value])

    def _assign(self, name: str, value: Any) -> None:
        for variable in reversed(self._variables):
            if variable[0] == name:
                variable[1] = value
                return

    def _template(self, dot: Any, node: Call) -> None:
        tree = self._trees.get(node.name)
        if tree is None:
            self._fail(node, "template %s not defined" % go_quote(node.name))
        self._calls += 1
        if self._calls > MAX_CALLS:
            self._fail(node, "exceeded maximum template depth (%d)" % MAX_CALLS)
        value = NO_VALUE if node.pipeline is None else self._pipeline(dot, node.pipeline)
        variables, name = self._variables, self._name
        self._variables, self._name = [["$", value]], node.name
        self._list(value, tree)
        self._variables, self._name = variables, name
        self._calls -= 1

    # -- values ----------------------------------------------------------------------------------------------------

    def _pipeline(self, dot: Any, pipeline: Pipeline, *, declare: bool = True) -> Any:
        value: Any = _ABSENT
        for command in pipeline.commands:
            value = self._command(dot, command, value)
        if declare:
            for name in pipeline.names:
                if pipeline.assigns:
                    self._assign(name, value)
                else:
                    self._variables.append([name, value])
        return value

    def _command(self, dot: Any, command: Command, final: Any) -> Any:
        first = command.words[0]
        if isinstance(first, Function):
            return self._function(dot, first, command, final)
        given = len(command.words) > 1 or final is not _ABSENT
        if given and isinstance(first, (Field, Chain, Variable)) and getattr(first, "names", None):
            self._value(dot, first)  # what is wrong with the field itself is said first
            self._fail(first, "%s is not a method but has arguments" % first.names[-1])
        if given:
            self._fail(first, "can't give argument to non-function %s" % first.source)
        if isinstance(first, Literal) and first.value is None:
            self._fail(first, "nil is not a command")
        return self._value(dot, first)

    def _value(self, dot: Any, node: Node) -> Any:
        """Of one word."""
        if isinstance(node, Literal):
            return NO_VALUE if node.value is None else node.value
        if isinstance(node, Dot):
            return dot
        if isinstance(node, Field):
            return self._fields(node, dot, node.names)
        if isinstance(node, Variable):
            found = next(value for name, value in reversed(self._variables) if name == node.name)
            return self._fields(node, found, node.names)
        if isinstance(node, Chain):
            if isinstance(node.inner, Literal):
                self._fail(node, "nil is not a command")
            return self._fields(node, self._value(dot, node.inner), node.names)
        if isinstance(node, Pipeline):
            return self._pipeline(dot, node)
        if isinstance(node, Function):
            return self._function(dot, node, Command(node.position, node.source, [node]), _ABSENT)
        return self._fail(node, "can't handle %s" % node.source)

    def _fields(self, node: Node, value: Any, names: list[str]) -> Any:
        for name in names:
            if not isinstance(value, dict):
                if value is NO_VALUE:
                    return value
                if value is None:
                    self._fail(node, "nil pointer evaluating interface {}.%s" % name)
                self._fail(node, "can't evaluate field %s in type %s" % (name, type_name(value)))
            if name in value:
                value = self._of(value, name)
            elif isinstance(value, GoMap):
                value = NO_VALUE
            elif name in self._shapes:
                value = shaped(None, self._shapes[name])
            else:
                self._fail(
                    node,
                    "map has no entry for key %s" % go_quote(name),
                    hint="there are " + ", ".join(str(key) for key in value) if value else "",
                )
        return value

    def _of(self, value: dict[Any, Any], key: Any) -> Any:
        """What is under a key that is there."""
        item = value[key]
        if isinstance(value, GoMap):
            return NO_VALUE if item is None and not isinstance(value, (StringMap, SliceMap)) else item
        return shaped(item, self._shapes[key]) if key in self._shapes else item

    # -- functions -------------------------------------------------------------------------------------------------

    def _function(self, dot: Any, node: Function, command: Command, final: Any) -> Any:
        words = command.words[1:]
        count = len(words) + (final is not _ABSENT)
        if node.name in ("and", "or"):
            return self._lazy(dot, node, words, final, count)
        signature = TABLE[node.name]
        self._count(node, signature, count)
        types = signature.types
        values = []
        for at in range(count):
            wanted = types[min(at, len(types) - 1)]
            if at < len(words):
                value = self._value(dot, words[at])
                self._accept(words[at], value, wanted, literal=isinstance(words[at], Literal))
            else:
                value = final
                self._accept(node, value, wanted, literal=False)
            values.append(None if value is NO_VALUE else value)
        try:
            if node.name == "json":
                return to_json(values[0], self._shapes)
            return signature.call(*values)
        except Fault as fault:
            return self._fail(node, "error calling %s: %s" % (node.name, fault.words), at=command)

    def _count(self, node: Function, signature: Signature, count: int) -> None:
        least = len(signature.types) - signature.more
        if count < least or (count > least and not signature.more):
            want = "at least %d" % least if signature.more else "%d" % least
            self._fail(node, "wrong number of args for %s: want %s got %d" % (node.name, want, count))

    def _accept(self, node: Node, value: Any, wanted: str, *, literal: bool) -> None:
        if wanted == "any":
            return
        if wanted == "strings":
            if not isinstance(value, list):
                self._fail(node, "wrong type for value; expected []string; got %s" % type_name(value))
            if not all(isinstance(item, str) for item in value):
                self._fail(node, "wrong type for value; expected []string; got []interface {}")
            return
        if isinstance(value, _TYPES[wanted]) and not isinstance(value, bool):
            return
        if literal:
            self._fail(node, "expected %s; found %s" % (wanted.replace("int", "integer"), node.source))
        if value is None or value is NO_VALUE:
            self._fail(node, "invalid value; expected %s" % wanted)
        self._fail(node, "wrong type for value; expected %s; got %s" % (wanted, type_name(value)))

    def _lazy(self, dot: Any, node: Function, words: list[Node], final: Any, count: int) -> Any:
        """``and`` is the first value that is false, ``or`` the first that is true; or the last."""
        if not count:
            self._fail(node, "wrong number of args for %s: want at least 1 got 0" % node.name)
        value: Any = None
        for word in words:
            value = self._value(dot, word)
            if truth(value) == (node.name == "or"):
                return value
        return value if final is _ABSENT else final

    def _fail(self, node: Node, words: str, *, at: Optional[Node] = None, hint: str = "") -> NoReturn:
        source = (at or node).source
        source = source if len(source) <= 20 else source[:20] + "..."
        raise Fault(words, (at or node).position, at=source or " ", template=self._name, hint=hint)
