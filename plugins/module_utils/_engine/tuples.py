# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``NamedTuple`` that costs next to nothing to define: for each of ``typing``'s, ``collections`` compiles source text,
which is a quarter of a millisecond; a task that changes nothing has met twenty of them by the time it is done.

To a type checker it is ``typing``'s own. ``tests/unit/test_tuples.py`` compares the two.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

__all__ = ["NamedTuple"]

try:
    from _collections import _tuplegetter  # type: ignore[import-not-found]  # not in typeshed
except ImportError:  # another Python than CPython

    def _tuplegetter(at: int, _doc: str) -> Any:
        return property(lambda self: tuple.__getitem__(self, at))


class _Fields(type):
    """``class Point(NamedTuple)`` as a subclass of ``tuple``."""

    def __new__(cls, name: str, bases: tuple[type, ...], names: dict[str, Any]) -> Any:
        if not bases:
            return type.__new__(cls, name, bases, names)
        # A Python that keeps annotations elsewhere gives them to whoever asks the class.
        fields = tuple(names.get("__annotations__") or type(name, (), dict(names)).__annotations__)
        defaults = {field: names.pop(field) for field in fields if field in names}
        members = {
            "__slots__": (), "_fields": fields, "_field_defaults": defaults, "__new__": _make_new(fields, defaults),
            "_replace": _replace, "_asdict": _asdict, "_make": classmethod(tuple.__new__), "__repr__": _repr,
            "__getnewargs__": _plain,
        }  # fmt: skip
        members.update({field: _tuplegetter(at, "") for at, field in enumerate(fields)})
        members.update(names)
        return type(name, (tuple,), members)


def _make_new(fields: tuple[str, ...], defaults: dict[str, Any]) -> Any:
    count, create = len(fields), tuple.__new__

    def new(cls: Any, *args: Any, **more: Any) -> Any:
        if len(args) == count and not more:
            return create(cls, args)
        values = list(args)
        for field in fields[len(args) :]:
            if field in more:
                values.append(more.pop(field))
            elif field in defaults:
                values.append(defaults[field])
            else:
                raise TypeError("%s() needs %s" % (cls.__name__, field))
        if more or len(values) != count:
            raise TypeError("%s() takes %s and nothing more" % (cls.__name__, ", ".join(fields)))
        return create(cls, values)

    return new


def _replace(self: Any, **changes: Any) -> Any:
    return type(self)(*[changes.pop(field, value) for field, value in zip(self._fields, self)], **changes)


def _asdict(self: Any) -> dict[str, Any]:
    return dict(zip(self._fields, self))


def _plain(self: Any) -> tuple[Any, ...]:
    return tuple(self)


def _repr(self: Any) -> str:
    return "%s(%s)" % (type(self).__name__, ", ".join("%s=%r" % pair for pair in zip(self._fields, self)))


if not TYPE_CHECKING:

    class NamedTuple(metaclass=_Fields):
        """The base that a class statement names."""
