# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one exception tree of the engine.

Every failure a user can foresee is a ``WharfError``: ``msg`` says what was wrong, on what, why, and what to do;
the other fields are for playbooks. Below the modules nobody knows ``fail_json``: the delivery code turns an
exception into ``msg`` and ``error`` (see ``as_dict``).
"""

from __future__ import annotations

import os
from typing import Any, Optional


class WharfError(Exception):
    """A foreseeable failure, told in one sentence.

    ``kind`` is stable and what playbooks match on; ``step`` names the engine or kernel step ("mount_overlay",
    "pull_manifest"); ``subject`` the object ("container web"); ``path`` the option, file, or reference at fault;
    ``errno`` the kernel's number; ``hint`` what the user can do.
    """

    kind = "error"

    def __init__(
        self,
        msg: str,
        *,
        step: Optional[str] = None,
        subject: Optional[str] = None,
        path: Optional[str] = None,
        errno: Optional[int] = None,
        hint: Optional[str] = None,
        details: Optional[dict[str, Any]] = None,
    ) -> None:
        super().__init__(msg)
        self.msg = msg
        self.step = step
        self.subject = subject
        self.path = path
        self.errno = errno
        self.hint = hint
        self.details = details or {}

    def as_dict(self) -> dict[str, Any]:
        """``{kind, step, subject, path, errno, hint}`` plus whatever ``details`` holds."""
        return {
            "kind": self.kind,
            "step": self.step,
            "subject": self.subject,
            "path": self.path,
            "errno": self.errno,
            "hint": self.hint,
            **self.details,
        }


class UsageError(WharfError):
    """The task asked for something malformed or contradictory; nothing was touched."""

    kind = "usage"


class NotFound(WharfError):
    """An object the task names does not exist."""

    kind = "not_found"


class Conflict(WharfError):
    """The request collides with an existing object (name, port, subnet, address)."""

    kind = "conflict"


class InUse(WharfError):
    """Removal or change refused because something uses the object."""

    kind = "in_use"


class Unsupported(WharfError):
    """The host, its kernel, or this release cannot do it."""

    kind = "unsupported"


class StateError(WharfError):
    """The state directory is damaged, or written by a newer release."""

    kind = "state"


class KernelError(WharfError):
    """A system call failed; ``errno`` and the kernel's own words are passed on."""

    kind = "kernel"

    @classmethod
    def wrap(
        cls,
        error: OSError,
        sentence: str,
        *,
        step: str,
        subject: Optional[str] = None,
        hint: Optional[str] = None,
    ) -> KernelError:
        """``sentence`` + ": " + the kernel's words, e.g. ``Cannot mount proc on /proc: Operation not permitted``."""
        words = error.strerror or (os.strerror(error.errno) if error.errno else str(error))
        path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else None
        return cls("%s: %s" % (sentence, words), step=step, subject=subject, path=path, errno=error.errno, hint=hint)


class DiskFull(KernelError):
    """ENOSPC or EDQUOT while writing below the state directory."""

    kind = "disk_full"


class StartError(WharfError):
    """A container or exec could not start. ``details`` holds ``exit_code`` (126, 127, 128) and ``logs`` if any."""

    kind = "start"


class UnhealthyError(WharfError):
    """A container exited or turned unhealthy while the task waited for it."""

    kind = "unhealthy"


class RegistryError(WharfError):
    """A registry answered with an error or something that is no registry answer. ``details`` may hold ``status``."""

    kind = "registry"


class AuthError(RegistryError):
    """Credentials were missing, refused, or would have gone to a host they are not for."""

    kind = "auth"


class IntegrityError(WharfError):
    """Bytes do not have the digest, size or DiffID they were promised with. Never stored."""

    kind = "integrity"


class UntrustedError(WharfError):
    """An image's signature is missing, or does not say what the task wants it to say. ``details["reason"]``: unsigned,
    key, altered, other_image, identity, keyless, malformed, or local."""

    kind = "untrusted"


class TimedOut(WharfError):
    """Something did not happen within the time the task allows."""

    kind = "timeout"


class Interrupted(WharfError):
    """An internal process (spawner, monitor, resolver) died during the request."""

    kind = "interrupted"


class LayersWanted(WharfError):
    """An image is on the controller, and the target lacks some of its layers: ``details["wants"]`` names them. Not a
    failure but an answer, to the action plugin, which brings them."""

    kind = "layers_wanted"
