# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""From tokens to trees: one per ``define`` and ``block``, and "" for the template itself."""

from __future__ import annotations

from typing import Optional

from .lexer import Fault, Token, go_quote, tokens, unquote
from .names import FUNCTIONS
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

MAX_DEPTH = 60  # blocks and parentheses inside each other: far beyond use, and below Python's recursion limit
Trees = dict[str, list[Node]]


def parse(text: str) -> Trees:
    """Raises ``Fault``."""
    return _Parser(text).run()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens(text)
        self.at = 0
        self.trees: Trees = {}
        self.variables = ["$"]
        self.loops = 0
        self.depth = 0

    def run(self) -> Trees:
        body, _end = self._list(("end of template",), top=True)
        self.trees[""] = body
        return self.trees

    # -- tokens ----------------------------------------------------------------------------------------------------

    def _peek(self) -> Token:
        return self.tokens[self.at]

    def _next(self) -> Token:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def _skip(self) -> Token:
        """The next token that is no space, not taken."""
        while self._peek().kind == "space":
            self.at += 1
        return self._peek()

    def _unexpected(self, token: Token, context: str) -> Fault:
        if token.kind == "end":
            return Fault("unexpected EOF", token.position)
        return Fault("unexpected %s in %s" % (_shown(token), context), token.position)

    def _enter(self, position: int) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Fault("more than %d blocks and parentheses inside each other" % MAX_DEPTH, position)

    # -- blocks ----------------------------------------------------------------------------------------------------

    def _list(self, ends: tuple[str, ...], *, top: bool = False) -> tuple[list[Node], Token]:
        """Nodes up to ``{{end}}`` or ``{{else`` (not past what follows it), or to the end of the template."""
        out: list[Node] = []
        while True:
            token = self._next()
            if token.kind == "end":
                if "end of template" in ends:
                    return out, token
                raise Fault("unexpected EOF", token.position)
            if token.kind == "text":
                out.append(Text(token.position, token.value))
                continue
            word = self._skip()
            if word.kind == "keyword" and word.value in ("end", "else"):
                self.at += 1
                if word.value not in ends:
                    raise Fault("unexpected {{%s}}" % word.value, word.position)
                return out, word
            node = self._action(word, top)
            if node is not None:
                out.append(node)

    def _action(self, word: Token, top: bool) -> Optional[Node]:
        if word.kind != "keyword" or word.value == "nil":
            pipeline = self._pipeline("command", "right")
            return Action(pipeline.position, pipeline)
        self.at += 1
        if word.value in ("if", "with", "range"):
            return self._control(word)
        if word.value in ("break", "continue"):
            self._right(word.value)
            if not self.loops:
                raise Fault("{{%s}} outside {{range}}" % word.value, word.position)
            return Jump(word.position, word.value)
        if word.value == "template":
            return self._template(word)
        if word.value == "define" and not top:
            raise self._unexpected(word, "command")
        return self._define(word)

    def _right(self, context: str) -> None:
        token = self._skip()
        if token.kind != "right":
            raise self._unexpected(token, context)
        self.at += 1

    def _control(self, word: Token) -> Branch:
        kind, known = word.value, len(self.variables)
        self._enter(word.position)
        pipeline = self._pipeline(kind, "right")
        if kind == "range":
            self.loops += 1
        body, end = self._list(("end", "else"))
        if kind == "range":
            self.loops -= 1
        otherwise: Optional[list[Node]] = None
        if end.value == "end":
            self._right("end")
        else:
            otherwise = self._else(kind)
        del self.variables[known:]
        self.depth -= 1
        return Branch(word.position, kind, pipeline, body, otherwise)

    def _else(self, kind: str) -> list[Node]:
        """``{{else}}``, or ``{{else if}}`` and ``{{else with}}``, whose ``{{end}}`` ends the outer one, too."""
        token = self._skip()
        if token.kind == "keyword" and token.value == kind and kind != "range":
            self.at += 1
            return [self._control(token)]
        self._right("else")
        body, _end = self._list(("end",))
        self._right("end")
        return body

    def _name(self, context: str) -> tuple[str, Token]:
        token = self._skip()
        if token.kind != "string":
            raise self._unexpected(token, context)
        self.at += 1
        return _unquoted(token), token

    def _template(self, word: Token) -> Call:
        name, token = self._name("template clause")
        pipeline: Optional[Pipeline] = None
        if self._skip().kind == "right":
            self.at += 1
        else:
            pipeline = self._pipeline("template clause", "right")
        return Call(token.position, self._source(word), name, pipeline)

    def _source(self, word: Token) -> str:
        """Of the action that has been read, as Go shows it."""
        start = word.position
        return "{{%s}}" % self.text[start : self.tokens[self.at - 1].position].strip()

    def _define(self, word: Token) -> Optional[Node]:
        """``define``, or ``block``, which is a definition and its use."""
        name, token = self._name("%s clause" % word.value)
        outer, loops = self.variables, self.loops
        node: Optional[Node] = None
        if word.value == "block":
            pipeline = self._pipeline("block clause", "right")
            node = Call(token.position, self._source(word).replace("block", "template", 1), name, pipeline)
        else:
            self._right("define clause")
        self._enter(word.position)
        self.variables, self.loops = ["$"], 0
        body, _end = self._list(("end",))
        self._right("end")
        self.variables, self.loops = outer, loops
        self.depth -= 1
        if body or name not in self.trees:
            self.trees[name] = body
        return node

    # -- pipelines -------------------------------------------------------------------------------------------------

    def _pipeline(self, context: str, end: str) -> Pipeline:
        start = self._skip().position
        names, assigns, declared = self._declaration(context)
        commands: list[Command] = []
        while True:
            token = self._skip()
            if token.kind == end:
                self._check(commands, context, token)
                source = self.text[start : token.position].strip()
                self.at += 1
                self.variables += declared
                return Pipeline(start, source, commands, names, assigns)
            if token.kind not in _STARTS and not (token.kind == "keyword" and token.value == "nil"):
                raise self._unexpected(token, context)
            commands.append(self._command(end))

    def _declaration(self, context: str) -> tuple[list[str], bool, list[str]]:
        """``$x :=``, ``$x =``, and of ``range`` ``$i, $x :=``: names, whether assigned, which are new."""
        before = self.at
        names: list[str] = []
        while True:
            token = self._skip()
            if token.kind != "variable":
                break
            self.at += 1
            names.append(token.value)
            following = self._skip()
            if following.kind == "," and context == "range" and len(names) < 2:
                self.at += 1
                continue
            if following.kind == ",":
                raise Fault("too many declarations in %s" % context, following.position)
            if following.kind == "declare":
                self.at += 1
                return names, False, names
            if following.kind == "assign":
                self.at += 1
                for name in names:
                    self._known(name, token.position)
                return names, True, []
            break
        if len(names) > 1:
            raise self._unexpected(self._peek(), context)
        self.at = before
        return [], False, []

    def _check(self, commands: list[Command], context: str, token: Token) -> None:
        if not commands:
            raise Fault("missing value for %s" % context, token.position)
        for stage, command in enumerate(commands[1:], 2):
            if isinstance(command.words[0], (Literal, Dot)):
                raise Fault("non executable command in pipeline stage %d" % stage, command.position)

    def _command(self, end: str) -> Command:
        start = self._peek().position
        words: list[Node] = []
        while True:
            token = self._skip()
            word = self._operand()
            if word is not None:
                words.append(word)
            following = self._next()
            if following.kind == "space":
                continue
            if following.kind in ("right", ")"):
                self.at -= 1
                if following.kind != end:
                    raise self._unexpected(following, "operand")
            elif following.kind != "pipe":
                raise self._unexpected(following, "operand")
            break
        if not words:
            raise Fault("empty command", token.position)
        source = self.text[start : following.position].strip()
        return Command(start, source, words)

    def _operand(self) -> Optional[Node]:
        node = self._term()
        if node is None:
            return None
        names: list[str] = []
        while self._peek().kind == "field":
            names.append(self._next().value[1:])
        if not names:
            return node
        source = node.source + "".join("." + name for name in names)
        if isinstance(node, Field):
            return Field(node.position, source, node.names + names)
        if isinstance(node, Variable):
            return Variable(node.position, source, node.name, node.names + names)
        if isinstance(node, (Literal, Dot)):
            raise Fault("unexpected . after term %s" % go_quote(node.source), node.position)
        return Chain(node.position, source, node, names)

    def _term(self) -> Optional[Node]:
        token = self._peek()
        kind, value, position = token
        if kind == "identifier":
            if value not in FUNCTIONS:
                raise Fault("function %s not defined" % go_quote(value), position, hint="; ".join(_SORTED))
            node: Node = Function(position, value)
        elif kind == "dot":
            node = Dot(position, ".")
        elif kind == "keyword" and value == "nil":
            node = Literal(position, "nil", None)
        elif kind == "variable":
            self._known(value, position)
            node = Variable(position, value, value, [])
        elif kind == "field":
            node = Field(position, value, [value[1:]])
        elif kind == "bool":
            node = Literal(position, value, value == "true")
        elif kind == "number":
            node = Literal(position, value, _number(token))
        elif kind == "string":
            node = Literal(position, value, _unquoted(token))
        elif kind == "char":
            node = Literal(position, value, _char(token))
        elif kind == "(":
            self.at += 1
            self._enter(position)
            inner = self._pipeline("parenthesized pipeline", ")")
            self.depth -= 1
            inner.source = "(%s)" % inner.source
            return inner
        else:
            return None
        self.at += 1
        return node

    def _known(self, name: str, position: int) -> None:
        if name not in self.variables:
            raise Fault("undefined variable %s" % go_quote(name), position)


_STARTS = frozenset(["bool", "char", "dot", "field", "identifier", "number", "string", "variable", "("])
_SORTED = ("there are " + ", ".join(sorted(FUNCTIONS)),)


def _shown(token: Token) -> str:
    if token.kind in ("keyword", "dot"):
        return "<%s>" % token.value
    value = token.value if len(token.value) <= 20 else token.value[:20] + "..."
    return go_quote(value)


def _unquoted(token: Token) -> str:
    try:
        return unquote(token.value)
    except (ValueError, OverflowError):
        raise Fault("invalid syntax in string %s" % token.value, token.position) from None


def _char(token: Token) -> int:
    text = _unquoted(token)
    if len(text) != 1:
        raise Fault("malformed character constant: %s" % token.value, token.position)
    return ord(text)


def _number(token: Token) -> object:
    """int or float, as Go reads constants: a leading 0 is octal, underscores only between digits."""
    text = token.value.lower()
    bad = Fault("bad number syntax: %s" % go_quote(token.value), token.position)
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    if "__" in digits or digits.startswith("_") or digits.endswith("_"):
        raise bad
    try:
        if digits[:2] in ("0x", "0o", "0b"):
            if "p" in digits or "." in digits:
                number: object = sign * _hex_float(digits)
            else:
                number = sign * int(digits, 0)
        elif "." in digits or "e" in digits:
            number = sign * float(digits)
        elif len(digits) > 1 and digits[0] == "0":
            number = sign * int(digits, 8)
        else:
            number = sign * int(digits)
    except (ValueError, OverflowError):
        raise bad from None
    if isinstance(number, float) and number in (float("inf"), float("-inf")):
        raise bad
    if isinstance(number, int) and not -(1 << 63) <= number < 1 << 63:
        raise Fault("integer overflow: %s" % go_quote(token.value), token.position)
    return number


def _hex_float(digits: str) -> float:
    if "p" not in digits:
        raise ValueError(digits)
    return float.fromhex(digits.replace("_", ""))
