# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of a container's differences: how each one is dealt with, and why so."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..reconcile.options import Difference

_NOISE = {
    "stop_timeout": "it is for the next stop, and changes nothing until then",
    "image": "it is another name of the same image",
}
_MADE_WITH = "a container is made with it"


def tell(
    found: Sequence[Difference], noise: Sequence[str], before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """``[{option, before, after, change: live | replace | noise, cause: asked | drift, why}]``. ``noise``: options that
    differ between the specs ``before`` and ``after`` and make no change."""
    out = []
    for difference in found:
        cause, _semicolon, obstacle = difference.why.partition("; ")
        why = "the running container takes it" if difference.change == "live" else obstacle or _MADE_WITH
        shown = hidden(difference.option, difference.before), hidden(difference.option, difference.after)
        out.append(_entry(difference.option, *shown, difference.change, cause, why))
    named = {difference.option for difference in found}
    for option in noise:
        if option not in named:
            out.append(_entry(option, before.get(option), after.get(option), "noise", "asked", _NOISE[option]))
    return out


def _entry(option: str, before: Any, after: Any, change: str, cause: str, why: str) -> dict[str, Any]:
    return {"option": option, "before": before, "after": after, "change": change, "cause": cause, "why": why}


_SALT = os.urandom(16)


def hidden(option: str, value: Any) -> Any:
    """``value`` as it may be shown: values of env are shown by Docker, but belong in no log."""
    if option == "env" and isinstance(value, dict):
        return {key: _fingerprint(item) for key, item in value.items()}
    return value


def _fingerprint(value: str) -> str:
    """Enough to see that a value changed, nothing to find it out from: the salt is this process's own."""
    import hashlib

    return "hidden:" + hashlib.sha256(_SALT + value.encode("utf-8", "surrogateescape")).hexdigest()[:8]
