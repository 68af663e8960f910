# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tree of a template. ``source`` is how Go writes the node in its error messages."""

from __future__ import annotations

from typing import Any, Optional


class Node:
    __slots__ = ("position", "source")

    def __init__(self, position: int, source: str = "") -> None:
        self.position = position
        self.source = source


class Literal(Node):
    """A constant: bool, int, float, str; ``None`` is nil."""

    __slots__ = ("value",)

    def __init__(self, position: int, source: str, value: Any) -> None:
        super().__init__(position, source)
        self.value = value


class Dot(Node):
    __slots__ = ()


class Field(Node):
    """``.a.b``: fields of dot."""

    __slots__ = ("names",)

    def __init__(self, position: int, source: str, names: list[str]) -> None:
        super().__init__(position, source)
        self.names = names


class Variable(Node):
    """``$x.a.b``; ``name`` with its dollar."""

    __slots__ = ("name", "names")

    def __init__(self, position: int, source: str, name: str, names: list[str]) -> None:
        super().__init__(position, source)
        self.name = name
        self.names = names


class Chain(Node):
    """``(pipeline).a.b``."""

    __slots__ = ("inner", "names")

    def __init__(self, position: int, source: str, inner: Node, names: list[str]) -> None:
        super().__init__(position, source)
        self.inner = inner
        self.names = names


class Function(Node):
    __slots__ = ("name",)

    def __init__(self, position: int, name: str) -> None:
        super().__init__(position, name)
        self.name = name


class Command(Node):
    __slots__ = ("words",)

    def __init__(self, position: int, source: str, words: list[Node]) -> None:
        super().__init__(position, source)
        self.words = words


class Pipeline(Node):
    """``names``: variables it declares, or (``assigns``) gives another value."""

    __slots__ = ("assigns", "commands", "names")

    def __init__(self, position: int, source: str, commands: list[Command], names: list[str], assigns: bool) -> None:
        super().__init__(position, source)
        self.commands = commands
        self.names = names
        self.assigns = assigns


class Text(Node):
    __slots__ = ("text",)

    def __init__(self, position: int, text: str) -> None:
        super().__init__(position)
        self.text = text


class Action(Node):
    __slots__ = ("pipeline",)

    def __init__(self, position: int, pipeline: Pipeline) -> None:
        super().__init__(position, pipeline.source)
        self.pipeline = pipeline


class Branch(Node):
    """``kind``: if, with, range."""

    __slots__ = ("body", "kind", "otherwise", "pipeline")

    def __init__(
        self, position: int, kind: str, pipeline: Pipeline, body: list[Node], otherwise: Optional[list[Node]]
    ) -> None:
        super().__init__(position, pipeline.source)
        self.kind = kind
        self.pipeline = pipeline
        self.body = body
        self.otherwise = otherwise


class Call(Node):
    """``{{template "name" pipeline}}``."""

    __slots__ = ("name", "pipeline")

    def __init__(self, position: int, source: str, name: str, pipeline: Optional[Pipeline]) -> None:
        super().__init__(position, source)
        self.name = name
        self.pipeline = pipeline


class Jump(Node):
    """``{{break}}`` or ``{{continue}}``."""

    __slots__ = ()
