# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small stand-ins for five modules of the standard library, for a process that lives 30 milliseconds.

Half of such a process went into importing ``typing``, ``json``, ``socket``, ``signal`` and ``collections`` with what
they need themselves (``re``, ``enum``, ``functools``, ``selectors``...). The engine uses a handful of their names, and
the interpreter has those in C.

A stand-in holds just these; whoever asks it for another gets that one from the real module, which is imported then.
Where this Python's C modules are not as expected, nothing is put in place. The tests of the runtime run with the
stand-ins, as the launcher does, and ``tests/unit/oci/test_slim.py`` compares them with the real ones.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any
else:
    ModuleType = type(sys)

_NAMES = ("typing", "json", "socket", "signal", "collections")
_real: dict[str, Any] = {}


class StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for __path__ and the like
            raise AttributeError(name)
        return getattr(real(self.__name__), name)


def real(name: str) -> Any:
    """The module a stand-in stands for, imported now unless that has happened. From then on every import gets real
    modules, which refer to each other; those who have a stand-in go on through it."""
    if name not in _real:
        for other in (*_NAMES, "collections.abc"):
            if isinstance(sys.modules.get(other), StandIn) or other == "collections.abc":
                sys.modules.pop(other, None)
        _real[name] = __import__(name)
    return _real[name]


def install() -> bool:
    """Put the stand-ins in place, unless the real ones are there. False when this Python does not allow it."""
    if any(name in sys.modules for name in _NAMES):
        return False
    try:
        made = [_typing(), _json(), _socket(), _signal(), StandIn("collections")]
        import _collections_abc
    except (ImportError, AttributeError, TypeError):
        return False
    for module in made:
        sys.modules[module.__name__] = module
    sys.modules["collections.abc"] = _collections_abc
    return True


def _new(name: str, names: dict[str, Any]) -> StandIn:
    module = StandIn(name)
    module.__dict__.update(names)
    return module


# -- typing --------------------------------------------------------------------------------------------------------


class _Form:
    """``Optional[int]`` at run time: nobody looks at it."""

    def __getitem__(self, _item: Any) -> _Form:
        return self


def _typing() -> StandIn:
    form = _Form()
    names = (
        "Any",
        "Optional",
        "Union",
        "Callable",
        "Literal",
        "NoReturn",
        "Sequence",
        "Mapping",
        "Iterable",
        "Iterator",
    )
    found: dict[str, Any] = dict.fromkeys(names, form)
    found.update(TYPE_CHECKING=False, TypeVar=lambda _name: form)
    return _new("typing", found)


# -- json ----------------------------------------------------------------------------------------------------------


def _json() -> StandIn:
    import _json as c

    class Context:
        strict = True
        object_hook = object_pairs_hook = None
        parse_float, parse_int = float, int
        parse_constant = {"-Infinity": -float("inf"), "Infinity": float("inf"), "NaN": float("nan")}.__getitem__

    context: Any = Context()
    context.memo = {}
    scan = c.make_scanner(context)
    quote = c.encode_basestring_ascii

    def loads(text: Any, **more: Any) -> Any:
        if not more:
            try:
                whole = text if isinstance(text, str) else bytes(text).decode()
                start = len(whole) - len(whole.lstrip(" \t\n\r"))
                value, end = scan(whole, start)
                if not whole[end:].strip(" \t\n\r"):
                    return value
            except (StopIteration, ValueError, ImportError, AttributeError):
                pass  # not JSON: the real module says what is wrong
        return real("json").loads(text, **more)

    def dumps(value: Any, **more: Any) -> str:
        if not more:
            encode = c.make_encoder({}, _refuse, quote, None, ": ", ", ", False, False, True)
            try:
                return "".join(encode(value, 0))
            except (TypeError, ValueError):
                pass
        text: str = real("json").dumps(value, **more)
        return text

    return _new("json", {"loads": loads, "dumps": dumps})


def _refuse(value: Any) -> Any:
    raise TypeError(type(value).__name__)


# -- socket, signal ------------------------------------------------------------------------------------------------


def _socket() -> StandIn:
    import _socket as c

    class Socket(c.socket):
        __slots__ = ()

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_exc: object) -> None:
            self.close()

    def socketpair(family: int = c.AF_UNIX, kind: int = c.SOCK_STREAM, protocol: int = 0) -> tuple[Socket, Socket]:
        one, other = c.socketpair(family, kind, protocol)
        return (
            Socket(family, kind, protocol, one.detach()),
            Socket(family, kind, protocol, other.detach()),
        )

    names = (
        "AF_UNIX", "AF_INET", "SOCK_STREAM", "SOCK_SEQPACKET", "SOCK_DGRAM", "SOCK_CLOEXEC", "SOL_SOCKET", "SCM_RIGHTS",
        "CMSG_SPACE", "MSG_CMSG_CLOEXEC", "SO_PEERCRED", "timeout",
    )  # fmt: skip
    found: dict[str, Any] = {name: getattr(c, name) for name in names}
    return _new("socket", {**found, "socket": Socket, "socketpair": socketpair})


def _signal() -> StandIn:
    import _signal as c  # type: ignore[import-not-found]

    # Numbers and functions; that the real module's numbers are enumerations nobody here looks at.
    names = [name for name in dir(c) if not name.startswith("_")]
    found: dict[str, Any] = {name: getattr(c, name) for name in names}
    return _new("signal", found)
