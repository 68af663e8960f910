# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the text of a template to tokens."""

from __future__ import annotations

from typing import Optional

from ..tuples import NamedTuple

LEFT, RIGHT = "{{", "}}"
SPACES = " \t\r\n"
KEYWORDS = frozenset(["block", "break", "continue", "define", "else", "end", "if", "range", "nil", "template", "with"])
_DIGITS = {"x": "0123456789abcdefABCDEF_", "o": "01234567_", "b": "01_"}


class Fault(Exception):
    """What is wrong, and where; ``Template`` makes the sentence of it. ``at``: the expression, when it was executed."""

    def __init__(self, words: str, position: int = 0, *, at: str = "", template: str = "", hint: str = "") -> None:
        super().__init__(words)
        self.words = words
        self.position = position
        self.at = at
        self.template = template
        self.hint = hint


class Token(NamedTuple):
    """``kind``: text, left, right, space, field (``.x``), variable (``$x``), identifier, keyword, bool, number, string,
    char, dot, pipe, declare (``:=``), assign (``=``), ``(``, ``)``, ``,``, other (a character), end (of the
    template)."""

    kind: str
    value: str
    position: int


def tokens(text: str) -> list[Token]:
    """Raises ``Fault``. Spaces inside actions are tokens: they tell ``.a.b`` from ``.a .b``."""
    return _Lexer(text).run()


class _Lexer:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.out: list[Token] = []

    def run(self) -> list[Token]:
        trim = False
        while True:
            start = self.text.find(LEFT, self.at)
            piece = self.text[self.at :] if start < 0 else self.text[self.at : start]
            position = self.at
            if trim:
                position += len(piece) - len(piece.lstrip(SPACES))
                piece = piece.lstrip(SPACES)
            if start < 0:
                self._text(piece, position)
                self.out.append(Token("end", "", len(self.text)))
                return self.out
            self.at = start + len(LEFT)
            if self.text[self.at : self.at + 1] == "-" and self.text[self.at + 1 : self.at + 2] in tuple(SPACES):
                piece = piece.rstrip(SPACES)
                self.at += 2
            self._text(piece, position)
            if self.text.startswith("/*", self.at):
                trim = self._comment()
            else:
                self.out.append(Token("left", LEFT, start))
                trim = self._action(start)

    def _text(self, piece: str, position: int) -> None:
        if piece:
            self.out.append(Token("text", piece, position))

    def _comment(self) -> bool:
        end = self.text.find("*/", self.at)
        if end < 0:
            raise Fault("unclosed comment", self.at)
        self.at = end + 2
        trim = self._right()
        if trim is None:
            raise Fault("comment ends before closing delimiter", self.at)
        return trim

    def _right(self) -> Optional[bool]:
        """Whether the closing delimiter that is here trims; None when there is none."""
        if self.text.startswith(RIGHT, self.at):
            self.at += len(RIGHT)
            return False
        if self.text[self.at : self.at + 1] in tuple(SPACES) and self.text.startswith("-" + RIGHT, self.at + 1):
            self.at += 2 + len(RIGHT)
            return True
        return None

    # -- inside an action ------------------------------------------------------------------------------------------

    def _action(self, start: int) -> bool:
        self.depth = 0
        while True:
            here = self.at
            trim = self._right()
            if trim is not None:
                if self.depth:
                    raise Fault("unclosed left paren", here)
                self.out.append(Token("right", RIGHT, here))
                return trim
            if here >= len(self.text):
                raise Fault("unclosed action started at character %d" % start, here)
            self._one(self.text[here], here)

    def _one(self, char: str, here: int) -> None:
        following = self.text[here + 1 : here + 2]
        if char in SPACES:
            while self.at < len(self.text) and self.text[self.at] in SPACES:
                if self.text.startswith("-" + RIGHT, self.at + 1):
                    break  # belongs to the closing delimiter
                self.at += 1
            if self.at > here:
                self._add("space", here)
        elif char == "=":
            self._take("assign", 1)
        elif char == ":":
            if following != "=":
                raise Fault("expected :=", here)
            self._take("declare", 2)
        elif char == "|":
            self._take("pipe", 1)
        elif char == ",":
            self._take(",", 1)
        elif char in "\"'":
            self._quoted(char)
        elif char == "`":
            self._raw()
        elif char == "(":
            self.depth += 1
            self._take("(", 1)
        elif char == ")":
            self.depth -= 1
            if self.depth < 0:
                raise Fault("unexpected right paren", here)
            self._take(")", 1)
        elif char in "+-" or _is_digit(char) or (char == "." and _is_digit(following)):
            self._number()
        elif char == "." or char == "$":
            self._word("field" if char == "." else "variable")
        elif _is_name(char):
            self._word("identifier")
        elif char.isascii() and char.isprintable():
            self._take("other", 1)
        else:
            raise Fault("unrecognized character in action: U+%04X %r" % (ord(char), char), here)

    def _add(self, kind: str, start: int) -> None:
        self.out.append(Token(kind, self.text[start : self.at], start))

    def _take(self, kind: str, length: int) -> None:
        self.at += length
        self._add(kind, self.at - length)

    def _word(self, kind: str) -> None:
        start = self.at
        self.at += 1
        while self.at < len(self.text) and _is_name(self.text[self.at]):
            self.at += 1
        word = self.text[start : self.at]
        after = self.text[self.at : self.at + 1]
        if after and after not in SPACES + ".,|:=()" and not self.text.startswith(RIGHT, self.at):
            raise Fault("bad character U+%04X %r" % (ord(after), after), self.at)
        if kind == "field" and word == ".":
            kind = "dot"
        elif kind == "identifier" and word in ("true", "false"):
            kind = "bool"
        elif kind == "identifier" and word in KEYWORDS:
            kind = "keyword"
        self._add(kind, start)

    def _quoted(self, quote: str) -> None:
        start = self.at
        self.at += 1
        while True:
            char = self.text[self.at : self.at + 1]
            if char == "\\" and self.text[self.at + 1 : self.at + 2] not in ("", "\n"):
                self.at += 2
                continue
            if char in ("", "\n"):
                what = "quoted string" if quote == '"' else "character constant"
                raise Fault("unterminated " + what, start)
            self.at += 1
            if char == quote:
                break
        self._add("string" if quote == '"' else "char", start)

    def _raw(self) -> None:
        end = self.text.find("`", self.at + 1)
        if end < 0:
            raise Fault("unterminated raw quoted string", self.at)
        start, self.at = self.at, end + 1
        self._add("string", start)

    def _number(self) -> None:
        """Whether it is one, ``parser`` finds out; here it only has to end."""
        start = self.at
        if self.text[self.at] in "+-":
            self.at += 1
        digits = "0123456789_"
        exponent = "eE"
        if self.text[self.at : self.at + 1] == "0" and self.text[self.at + 1 : self.at + 2].lower() in _DIGITS:
            digits = _DIGITS[self.text[self.at + 1].lower()]
            exponent = "pP" if self.text[self.at + 1] in "xX" else ""
            self.at += 2
        self._run(digits)
        if self.text[self.at : self.at + 1] == ".":
            self.at += 1
            self._run(digits)
        if exponent and self.text[self.at : self.at + 1] in tuple(exponent):
            self.at += 1
            if self.text[self.at : self.at + 1] in ("+", "-"):
                self.at += 1
            self._run("0123456789_")
        after = self.text[self.at : self.at + 1]
        if after and _is_name(after):
            self.at += 1
            raise Fault("bad number syntax: %s" % go_quote(self.text[start : self.at]), start)
        self._add("number", start)

    def _run(self, allowed: str) -> None:
        while self.at < len(self.text) and self.text[self.at] in allowed:
            self.at += 1


def _is_digit(char: str) -> bool:
    return bool(char) and char in "0123456789"


def _is_name(char: str) -> bool:
    return char == "_" or char.isalpha() or char.isdecimal()


def go_quote(text: str, *, ascii_only: bool = False) -> str:
    """As ``%q`` of Go; ``ascii_only`` as its ``%+q``."""
    short = {"\\": "\\\\", '"': '\\"', "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    short["\v"] = "\\v"
    out = []
    for char in text:
        code = ord(char)
        if char in short:
            out.append(short[char])
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that is no text
            out.append("\\x%02x" % (code - 0xDC00))
        elif code < 0x20 or code == 0x7F:
            out.append("\\x%02x" % code)
        elif char == " " or (char.isprintable() and (code < 0x80 or not ascii_only)):
            out.append(char)
        else:
            out.append("\\u%04x" % code if code < 0x10000 else "\\U%08x" % code)
    return '"%s"' % "".join(out)


def unquote(literal: str) -> str:
    """The value of a Go string or character literal with its quotes. Raises ``ValueError``."""
    if literal[0] == "`":
        return literal[1:-1].replace("\r", "")
    quote, body = literal[0], literal[1:-1]
    plain = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, quote: ord(quote)}
    out = bytearray()
    at = 0
    while at < len(body):
        char = body[at]
        if char != "\\":
            out += char.encode("utf-8", "surrogateescape" if 0xDC80 <= ord(char) <= 0xDCFF else "surrogatepass")
            at += 1
            continue
        kind = body[at + 1 : at + 2]
        if kind in plain:
            out.append(plain[kind])
            at += 2
        elif kind in ("x", "u", "U"):
            length = {"x": 2, "u": 4, "U": 8}[kind]
            code = _code(body[at + 2 : at + 2 + length], length, 16)
            out += bytes([code]) if kind == "x" else chr(code).encode("utf-8")
            at += 2 + length
        else:
            out.append(_code(body[at + 1 : at + 4], 3, 8))
            at += 4
    return out.decode("utf-8", "surrogateescape")


def _code(digits: str, length: int, base: int) -> int:
    """Raises ``ValueError`` (of which a surrogate's ``UnicodeEncodeError`` is one)."""
    if len(digits) != length or not digits.isalnum() or not digits.isascii():
        raise ValueError(digits)
    code = int(digits, base)
    if base == 8 and code > 255:
        raise ValueError(digits)
    return code
