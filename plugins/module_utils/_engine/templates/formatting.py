# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Values as text, as Go's package fmt writes them (https://pkg.go.dev/fmt)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Optional

from .lexer import Fault, go_quote
from .values import NO_VALUE, items, octets, text, type_name

MAX_OUTPUT = 16 << 20  # what a template may make; ``pad`` and widths could fill any memory
_LIMIT = 1_000_000  # of width and precision, as in Go
_FLAGS = "+-# 0"


def show(value: Any) -> str:
    """``%v``."""
    if isinstance(value, str):
        return value
    if value is None or value is NO_VALUE:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return general(value)
    if isinstance(value, list):
        return "[%s]" % " ".join(show(item) for item in value)
    if isinstance(value, dict):
        return "map[%s]" % " ".join("%s:%s" % (show(key), show(item)) for key, item in items(value))
    return str(value)


def output(value: Any) -> str:
    """As an action writes its value."""
    return "<no value>" if value is NO_VALUE else show(value)


def sprint(values: Sequence[Any]) -> str:
    """Spaces only between two of which neither is a string."""
    out = ""
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            out += " "
        out += show(value)
    return out


def general(value: float, threshold: int = 6, *, upper: bool = False) -> str:
    """The shortest digits that are this number, with an exponent below 1e-4 and from 1e ``threshold`` on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    mantissa, _e, power = repr(value).lower().partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _dot, fraction = mantissa.lstrip("-").partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    exponent = int(power or 0) + len(whole) - 1
    if whole == "0":
        exponent -= len(fraction) - len(fraction.lstrip("0")) + 1 if fraction else 0
    digits = digits.rstrip("0") or "0"
    if digits == "0":
        return sign + "0"
    if exponent < -4 or exponent >= threshold:
        rest = "." + digits[1:] if len(digits) > 1 else ""
        out = "%s%s%se%s%02d" % (sign, digits[0], rest, "-" if exponent < 0 else "+", abs(exponent))
        return out.upper() if upper else out
    if exponent < 0:
        return "%s0.%s%s" % (sign, "0" * (-exponent - 1), digits)
    if len(digits) <= exponent + 1:
        return sign + digits + "0" * (exponent + 1 - len(digits))
    return "%s%s.%s" % (sign, digits[: exponent + 1], digits[exponent + 1 :])


# -- printf --------------------------------------------------------------------------------------------------------


class _Verb:
    """One directive: flags, width and precision (None: not given), and the letter."""

    __slots__ = ("flags", "letter", "precision", "width")

    def __init__(self) -> None:
        self.flags = ""
        self.width: Optional[int] = None
        self.precision: Optional[int] = None
        self.letter = ""

    def has(self, flag: str) -> bool:
        return flag in self.flags

    def pad(self, out: str, *, zeros: bool = False) -> str:
        """Width counts characters. Zeros go after a sign."""
        missing = (self.width or 0) - len(out)
        if missing <= 0:
            return out
        if self.has("-"):
            return out + " " * missing
        if zeros and self.has("0"):
            sign = out[:1] if out[:1] in ("+", "-", " ") else ""
            return sign + "0" * missing + out[len(sign) :]
        return " " * missing + out


def sprintf(layout: str, values: Sequence[Any]) -> str:
    """Mistakes are in the text, as Go has them: ``%!d(string=hi)``, ``%!v(MISSING)``, ``%!(EXTRA int=1)``."""
    out: list[str] = []
    size = at = 0
    arguments = _Arguments(values)
    while at < len(layout):
        start = layout.find("%", at)
        if start < 0:
            start = len(layout)
        out.append(layout[at:start])
        if start == len(layout):
            break
        piece, at = _directive(layout, start + 1, arguments)
        out.append(piece)
        size += len(piece)
        if size > MAX_OUTPUT:
            raise Fault("printf makes more than %d bytes" % MAX_OUTPUT)
    return "".join(out) + arguments.extra()


class _Arguments:
    """What a layout consumes, in order or, with ``[n]``, out of it."""

    __slots__ = ("bad", "jumped", "used", "values")

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values
        self.used = 0
        self.jumped = False  # then it is no mistake to leave some out
        self.bad = False

    def index(self, layout: str, at: int) -> int:
        """Read ``[n]`` if it is there; returns where it goes on."""
        if layout[at : at + 1] != "[":
            return at
        self.jumped = True
        end = layout.find("]", at)
        digits = layout[at + 1 : end] if end >= 0 else ""
        good = digits.isdecimal() and digits.isascii() and len(digits) < 7 and 0 < int(digits) <= len(self.values)
        self.bad = self.bad or not good
        self.used = int(digits) - 1 if good else self.used
        return end + 1 if end >= 0 else at + 1

    def take(self) -> Any:
        value = self.values[self.used] if self.used < len(self.values) else None
        self.used = min(self.used + 1, len(self.values))
        return value

    def extra(self) -> str:
        if self.jumped or self.used >= len(self.values):
            return ""
        rest = self.values[self.used :]
        shown = [type_name(v) if v is None or v is NO_VALUE else "%s=%s" % (type_name(v), show(v)) for v in rest]
        return "%!(EXTRA " + ", ".join(shown) + ")"


def _directive(layout: str, at: int, values: _Arguments) -> tuple[str, int]:
    """``(text, where it goes on)``."""
    verb = _Verb()
    problem = ""
    values.bad = False
    while layout[at : at + 1] and layout[at] in _FLAGS:
        verb.flags += layout[at]
        at += 1
    verb.width, at, bad = _count(layout, at, values)
    if bad:
        problem += "%!(BADWIDTH)"
    elif verb.width is not None and verb.width < 0:
        verb.width, verb.flags = -verb.width, verb.flags + "-"
    if layout[at : at + 1] == ".":
        verb.precision, at, bad = _count(layout, at + 1, values)
        if bad or (verb.precision or 0) < 0:
            verb.precision, problem = None, problem + ("%!(BADPREC)" if bad else "")
        elif verb.precision is None:
            verb.precision = 0
    at = values.index(layout, at)
    if at >= len(layout):
        return problem + "%!(NOVERB)", at
    verb.letter, at = layout[at], at + 1
    if verb.letter == "%":
        return problem + "%", at
    if values.bad:
        return problem + "%!" + verb.letter + "(BADINDEX)", at
    if values.used >= len(values.values):
        return problem + "%!" + verb.letter + "(MISSING)", at
    return problem + _write(verb, values.take()), at


def _count(layout: str, at: int, values: _Arguments) -> tuple[Optional[int], int, bool]:
    """A width or precision, which ``*`` takes from the values: ``(it, where it goes on, bad)``."""
    star = values.index(layout, at)
    if layout[star : star + 1] == "*":
        value = values.take()
        good = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LIMIT
        return (value if good else None), star + 1, not good
    if star != at:
        return None, star, False
    start = at
    while layout[at : at + 1] and layout[at] in "0123456789":
        at += 1
    if at == start:
        return None, at, False
    number = int(layout[start : min(at, start + 9)])
    return (number, at, False) if number <= _LIMIT and at - start <= 9 else (None, at, True)


def _write(verb: _Verb, value: Any) -> str:
    letter = verb.letter
    if letter == "T":
        return verb.pad(type_name(value))
    if value is None or value is NO_VALUE:
        return verb.pad("<nil>") if letter == "v" else "%!" + letter + "(<nil>)"
    if letter == "v" and verb.has("#"):
        return _literal(value)
    if isinstance(value, (list, dict)):
        return _compound(verb, value)
    if isinstance(value, bool):
        out = verb.pad(show(value)) if letter in "tv" else None
    elif isinstance(value, int):
        out = _integer(verb, value)
    elif isinstance(value, float):
        out = _float(verb, value)
    else:
        out = _string(verb, value)
    if out is not None:
        return out
    verb.letter, verb.flags = "v", verb.flags.replace("#", "")  # width and precision hold for what is shown instead
    shown = _write(verb, value)
    verb.letter = letter
    return "%%!%s(%s=%s)" % (letter, type_name(value), shown)


def _compound(verb: _Verb, value: Any) -> str:
    """The verb holds for every part."""
    if isinstance(value, list):
        return "[%s]" % " ".join(_write(verb, item) for item in value)
    return "map[%s]" % " ".join("%s:%s" % (_write(verb, key), _write(verb, item)) for key, item in items(value))


def _literal(value: Any) -> str:
    """``%#v``."""
    if value is None or value is NO_VALUE:
        return "interface {}(nil)"
    if isinstance(value, str):
        return go_quote(value)
    if isinstance(value, list):
        return "%s{%s}" % (type_name(value), ", ".join(_literal(item) for item in value))
    if isinstance(value, dict):
        inner = ", ".join("%s:%s" % (_literal(key), _literal(item)) for key, item in items(value))
        return "%s{%s}" % (type_name(value), inner)
    return show(value)


def _integer(verb: _Verb, value: int) -> Optional[str]:
    letter = verb.letter
    if letter == "c":
        return verb.pad(chr(value) if 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000 else "\ufffd")
    if letter == "q":
        known = 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000
        return verb.pad("'%s'" % (go_quote(chr(value) if known else "\ufffd")[1:-1].replace('\\"', '"')))
    if letter == "U":
        return verb.pad("U+%04X" % value if value >= 0 else "U+FFFFFFFFFFFFFFFF")
    form = {"d": "d", "v": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}.get(letter)
    if form is None:
        return None
    digits = format(abs(value), form)
    if verb.precision is not None:
        digits = "" if verb.precision == 0 and value == 0 else digits.rjust(verb.precision, "0")
    prefix = {"b": "0b", "o": "0", "x": "0x", "X": "0X"}.get(letter, "") if verb.has("#") else ""
    prefix = "0o" if letter == "O" else prefix
    sign = "-" if value < 0 else "+" if verb.has("+") else " " if verb.has(" ") else ""
    if verb.has("0") and not verb.has("-") and verb.precision is None and verb.width is not None:
        digits = digits.rjust(verb.width - len(sign), "0")  # zeros come between prefix and digits, uncounted
    return verb.pad(sign + prefix + digits)


def _float(verb: _Verb, value: float) -> Optional[str]:
    letter, precision = verb.letter, verb.precision
    if letter not in "vgGeEfFxX":
        return None
    if math.isnan(value) or math.isinf(value):
        return verb.pad(general(value))
    if letter in "xX":
        out = _hexadecimal(value, upper=letter == "X")
    elif letter in "vgG" and precision is None:
        out = general(value, upper=letter == "G")
    elif letter in "vgG":
        out = ("%." + str(precision) + ("G" if letter == "G" else "g")) % value
    else:
        out = ("%." + str(6 if precision is None else precision) + letter.replace("F", "f")) % value
    if not out.startswith("-"):
        out = ("+" if verb.has("+") else " " if verb.has(" ") else "") + out
    return verb.pad(out, zeros=True)


def _hexadecimal(value: float, *, upper: bool) -> str:
    """``0x1.8p+01``."""
    sign, number = ("-", -value) if math.copysign(1.0, value) < 0 else ("", value)
    mantissa, _p, power = number.hex()[2:].partition("p")
    whole, _dot, fraction = mantissa.partition(".")
    fraction = fraction.rstrip("0")
    exponent = int(power)
    out = "0x%s%sp%s%02d" % (whole, "." + fraction if fraction else "", "-" if exponent < 0 else "+", abs(exponent))
    return sign + (out.upper() if upper else out)


def _string(verb: _Verb, value: str) -> Optional[str]:
    letter = verb.letter
    if letter in "xX":
        data = octets(value)
        data = data if verb.precision is None else data[: verb.precision]
        digits = data.hex(" ") if verb.has(" ") else data.hex()
        digits = digits.upper() if letter == "X" else digits
        return verb.pad(("0" + letter if verb.has("#") and digits else "") + digits)
    if letter not in "svq":
        return None
    if verb.precision is not None:
        value = value[: verb.precision]
    if letter == "q":
        raw = verb.has("#") and "`" not in value and all(c == "\t" or c.isprintable() for c in value)
        value = "`%s`" % value if raw else go_quote(value, ascii_only=verb.has("+"))
    return verb.pad(value, zeros=True)


def cut(value: str, start: int, end: int) -> str:
    """Bytes ``start`` to ``end`` of a string."""
    return text(octets(value)[start:end])
