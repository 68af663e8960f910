# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Docker's credential helpers: ``docker-credential-NAME get``, the registry on standard input, JSON on its output.

A helper that is not installed, or that has nothing for the registry, is passed over: its configuration may have come
from another machine. One that fails otherwise is an error, for the request would go on without a login and be refused
with words that lead nowhere.
"""

from __future__ import annotations

import json
import os
from typing import Optional

from ..errors import AuthError, TimedOut
from .credentials import Credential

TIMEOUT = 30.0  # seconds; some ask a service in the network
_NOTHING = ("credentials not found in native keychain", "no credentials server url", "no credentials username")


def ask(name: str, host: str, path: str) -> Optional[Credential]:
    """``path``: the file that names the helper. Its environment is the task's: helpers of clouds are told there who
    they are. Raises ``AuthError`` (garbage, failure), ``TimedOut``."""
    from .. import process

    program = "docker-credential-" + name
    source = "%s (%s)" % (program, path)
    try:
        done = process.run([program, "get"], stdin=host.encode(), env=dict(os.environ), timeout=TIMEOUT)
    except TimedOut as error:
        raise TimedOut(
            "The credential helper %s did not answer within %g seconds" % (source, TIMEOUT),
            step="credential_helper",
            subject=host,
            path=path,
            hint="It may wait for a user or a locked keychain; log in with the registry module instead.",
        ) from error
    except OSError:
        return None  # not installed here
    if done.returncode:
        _failed(done.returncode, done.stdout or done.stderr, source, host, path)
        return None
    return _read(done.stdout, source, host, path)


def _failed(code: int, output: bytes, source: str, host: str, path: str) -> None:
    """Returns when the helper only says that it has nothing."""
    words = "".join(c if c.isprintable() else " " for c in output[:300].decode("utf-8", "replace")).strip()
    if words.lower().startswith(_NOTHING):
        return
    raise AuthError(
        "The credential helper %s failed for %s with exit code %d%s"
        % (source, host, code, ": " + words if words else ""),
        step="credential_helper",
        subject=host,
        path=path,
    )


def _read(output: bytes, source: str, host: str, path: str) -> Optional[Credential]:
    try:
        answer = json.loads(output)
        username, secret = answer.get("Username"), answer.get("Secret")
    except (ValueError, AttributeError, RecursionError):
        username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str):
        # Not a word of what it wrote: it may be half of a secret.
        raise AuthError(
            "The credential helper %s did not answer with a user name and a secret" % source,
            step="credential_helper",
            subject=host,
            path=path,
        )
    if not secret:
        return None
    if username == "<token>":
        return Credential("", "", identity_token=secret, source=source)
    return Credential(username, secret, source=source)
