# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine's own NamedTuple behaves as typing's where it is used, and makes no use of it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import typing

import pytest
from helpers.bundle import PLUGINS
from module_utils._engine import tuples


class Real(typing.NamedTuple):
    """One of typing's."""

    one: int
    two: str = "b"
    three: tuple = ()

    def both(self):
        return "%s%s" % (self.one, self.two)

    @property
    def double(self):
        return 2 * self.one


class Ours(tuples.NamedTuple):
    """One of ours."""

    one: int
    two: str = "b"
    three: tuple = ()

    def both(self):
        return "%s%s" % (self.one, self.two)

    @property
    def double(self):
        return 2 * self.one


@pytest.mark.parametrize("kind", [Real, Ours])
def test_named_tuples_are_tuples_with_names_defaults_and_methods(kind):
    value = kind(1, three=(3,))
    assert value == (1, "b", (3,)) and value.one == 1 and value.both() == "1b" and value.double == 2
    assert kind._fields == ("one", "two", "three") and kind._field_defaults == {"two": "b", "three": ()}
    assert value._replace(two="c") == (1, "c", (3,)) and value._replace(two="c").__class__ is kind
    assert value._asdict() == {"one": 1, "two": "b", "three": (3,)}
    assert kind._make(iter([4, "x", ()])) == (4, "x", ()) and kind._make([4, "x", ()]).__class__ is kind
    one, *rest = value
    assert one == 1 and rest == ["b", (3,)] and isinstance(value, tuple) and hash(value) == hash((1, "b", (3,)))
    assert value[1:] == ("b", (3,)) and sorted([kind(2), kind(1)]) == [kind(1), kind(2)]
    for same in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert same == value and same.__class__ is kind
    for arguments, more in (((), {}), ((1, 2, 3, 4), {}), ((1,), {"nope": 2}), ((1,), {"one": 2})):
        with pytest.raises(TypeError):
            kind(*arguments, **more)
    with pytest.raises((TypeError, ValueError)):
        value._replace(nope=1)
    with pytest.raises(AttributeError):
        value.one = 5
    with pytest.raises(AttributeError):
        value.four = 5
    assert kind.__name__ in repr(value) and kind.__doc__.startswith("One of")


def test_they_are_shown_alike():
    assert repr(Ours(1)).replace("Ours", "Real") == repr(Real(1))


def test_defining_one_imports_nothing():
    script = (
        "import sys; sys.path.insert(0, %r); before = set(sys.modules)\n"
        "from module_utils._engine.tuples import NamedTuple\n"
        "class Point(NamedTuple):\n    x: int\n    y: int = 2\n"
        "assert Point(1) == (1, 2)\n"
        "print(sorted(name for name in set(sys.modules) - before if 'module_utils' not in name))\n"
    ) % PLUGINS
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['__future__', '_collections']"
