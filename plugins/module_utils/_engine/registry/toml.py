# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""TOML for one file: ``registries.conf``. Python 3.11 has a parser; for 3.9 and 3.10 there is this subset.

Why not a vendored parser: it would travel to every target for a file that few have, on Pythons that go away. What
``containers-registries.conf(5)`` needs is tables, arrays of tables, strings, booleans, numbers, arrays and inline
tables of those. Anything else is an error with its line, never a guess: the file may block registries.
"""

from __future__ import annotations

from typing import Any

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


class TomlError(ValueError):
    """Where and what, in a few words."""


def loads(text: str) -> dict[str, Any]:
    """Raises ``TomlError``."""
    try:
        from importlib import import_module

        tomllib = import_module("tomllib")
    except ImportError:
        return loads_subset(text)
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except ValueError as error:
        raise TomlError(str(error)) from error
    return document


def loads_subset(text: str) -> dict[str, Any]:
    return _Parser(text).document()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._at = 0

    def document(self) -> dict[str, Any]:
        root: dict[str, Any] = {}
        table = root
        while self._skip_lines():
            if self._take("[["):
                table = self._open(root, self._keys(), many=True)
                self._expect("]]")
            elif self._take("["):
                table = self._open(root, self._keys(), many=False)
                self._expect("]")
            else:
                self._assign(table)
            self._end_of_line()
        return root

    # -- structure ---------------------------------------------------------------------------------------------------

    def _open(self, root: dict[str, Any], keys: list[str], many: bool) -> dict[str, Any]:
        table = self._descend(root, keys[:-1])
        last = keys[-1]
        if many:
            entries = table.setdefault(last, [])
            if not isinstance(entries, list):
                self._fail("%s is no array of tables" % last)
            entries.append({})
            new: dict[str, Any] = entries[-1]
            return new
        return self._descend(table, [last])

    def _descend(self, table: dict[str, Any], keys: list[str]) -> dict[str, Any]:
        for key in keys:
            value = table.setdefault(key, {})
            if isinstance(value, list) and value:
                value = value[-1]
            if not isinstance(value, dict):
                self._fail("%s is no table" % key)
            table = value
        return table

    def _assign(self, table: dict[str, Any]) -> None:
        keys = self._keys()
        self._expect("=")
        self._skip_blanks()
        table = self._descend(table, keys[:-1])
        if keys[-1] in table:
            self._fail("%s is given twice" % keys[-1])
        table[keys[-1]] = self._value()

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip_blanks()
            if self._peek() in ('"', "'"):
                keys.append(self._string())
            else:
                start = self._at
                while self._peek() in _BARE and self._peek():
                    self._at += 1
                if start == self._at:
                    self._fail("a name is missing")
                keys.append(self._text[start : self._at])
            self._skip_blanks()
            if not self._take("."):
                return keys

    # -- values ------------------------------------------------------------------------------------------------------

    def _value(self) -> Any:
        letter = self._peek()
        if letter in ('"', "'") and letter:
            return self._string()
        if self._take("["):
            return self._array()
        if self._take("{"):
            return self._inline()
        start = self._at
        while self._peek() and self._peek() not in ",]}# \t\n":
            self._at += 1
        word = self._text[start : self._at]
        if word in ("true", "false"):
            return word == "true"
        try:
            if word.lstrip("+-").replace("_", "").isdigit() and word.isascii():
                return int(word)
        except ValueError:  # two signs, or more digits than Python reads
            pass
        return self._fail("%r is no value that is understood here" % word[:40])

    def _array(self) -> list[Any]:
        items: list[Any] = []
        while True:
            self._skip_lines()
            if self._take("]"):
                return items
            items.append(self._value())
            self._skip_lines()
            if not self._take(","):
                self._expect("]")
                return items

    def _inline(self) -> dict[str, Any]:
        table: dict[str, Any] = {}
        self._skip_blanks()
        if self._take("}"):
            return table
        while True:
            self._assign(table)
            self._skip_blanks()
            if self._take("}"):
                return table
            self._expect(",")

    def _string(self) -> str:
        quote = self._text[self._at]
        if self._text.startswith(quote * 3, self._at):
            self._fail("strings of several lines are not understood here")
        self._at += 1
        letters: list[str] = []
        while True:
            letter = self._peek()
            if letter in ("", "\n"):
                self._fail("a string has no end")
            self._at += 1
            if letter == quote:
                return "".join(letters)
            if letter == "\\" and quote == '"':
                letter = str(self._escape())
            letters.append(letter)

    def _escape(self) -> str:
        letter = self._peek()
        self._at += 1
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        length = {"u": 4, "U": 8}.get(letter, 0)
        digits = self._text[self._at : self._at + length]
        try:
            if length and len(digits) == length:
                self._at += length
                return chr(int(digits, 16))
        except (ValueError, OverflowError):
            length = 0
        self._fail("an escape is not understood")
        return ""

    # -- letters -----------------------------------------------------------------------------------------------------

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, word: str) -> bool:
        if self._text.startswith(word, self._at):
            self._at += len(word)
            return True
        return False

    def _expect(self, word: str) -> None:
        self._skip_blanks()
        if not self._take(word):
            self._fail("%r is missing" % word)

    def _skip_blanks(self) -> None:
        while self._peek() in (" ", "\t"):
            self._at += 1

    def _skip_lines(self) -> bool:
        """Over blanks, empty lines and comments. False at the end."""
        while True:
            self._skip_blanks()
            if self._peek() == "#":
                self._skip_comment()
            elif not self._take("\n"):
                return self._at < len(self._text)

    def _skip_comment(self) -> None:
        end = self._text.find("\n", self._at)
        self._at = len(self._text) if end < 0 else end

    def _end_of_line(self) -> None:
        self._skip_blanks()
        if self._peek() == "#":
            self._skip_comment()
        if self._peek() and not self._take("\n"):
            self._fail("something follows where the line should end")

    def _fail(self, why: str) -> Any:
        raise TomlError("line %d: %s" % (self._text.count("\n", 0, self._at) + 1, why))
