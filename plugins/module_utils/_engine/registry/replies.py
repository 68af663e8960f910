# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a registry's refusal means, as an exception with a sentence."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Optional

from ..errors import AuthError, NotFound, RegistryError, WharfError

if TYPE_CHECKING:
    from .transport import Response

_BODY_LIMIT = 64 * 1024
_RETRY_STATUSES = (408, 429, 500, 502, 503, 504)


def number(text: object) -> int:
    """A header's whole number, or -1. More digits than any size has are none: Python refuses to read thousands."""
    digits = str(text or "").strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else -1


def error_text(body: bytes) -> str:
    """The message of ``{"errors": [{code, message}]}`` or of ``{"details"|"error"|"message": ...}``, or ""."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    errors = document.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        code, message = errors[0].get("code"), errors[0].get("message")
        words = [part for part in (code, message) if isinstance(part, str) and part]
        return _clean(": ".join(words))
    for name in ("error_description", "details", "message", "error"):
        if isinstance(document.get(name), str) and document[name]:
            return _clean(document[name])
    return ""


def _clean(text: str) -> str:
    """One line of printable text: a registry's words end up on a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:300]).strip()


def is_html(response: Response, start: bytes = b"") -> bool:
    kind = str(response.headers.get("content-type") or "").lower()
    return "text/html" in kind or start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html"))


def should_retry(status: int) -> bool:
    return status in _RETRY_STATUSES


def retry_after(response: Response, now: Optional[float] = None) -> Optional[float]:
    """Seconds the registry asks us to wait (``Retry-After``: a number, or a date), or None."""
    value = str(response.headers.get("retry-after") or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    if value:
        from email.utils import parsedate_to_datetime

        try:
            when = parsedate_to_datetime(value).timestamp()
        except (ValueError, TypeError, OverflowError):
            return None
        return max(0.0, when - (time.time() if now is None else now))
    return None


def refusal(response: Response, subject: str, host: str) -> WharfError:
    """The exception for an answer that is not the one hoped for. Reads (some of) the body."""
    status = response.status
    try:
        body = response.body(_BODY_LIMIT)
    except RegistryError:
        body = b""  # the status alone says enough
    text = error_text(body)
    said = " (%s)" % text if text else ""
    details = {"status": status}
    if is_html(response, body) and status not in (401, 403, 404, 429):
        return RegistryError(
            "%s answered with a web page (status %d) when asked for %s; is it a registry?" % (host, status, subject),
            step="registry_request",
            subject=subject,
            details=details,
            hint="A proxy or login page may stand between this host and the registry.",
        )
    if status == 404:
        return NotFound("%s does not exist on %s%s" % (subject, host, said), step="registry_request", subject=subject)
    if status in (401, 403):
        return AuthError(
            "%s denied access to %s: it does not exist, or this login may not read it%s" % (host, subject, said),
            step="registry_request",
            subject=subject,
            details=details,
            hint="Check the name, or log in with the registry module.",
        )
    if status == 429:
        return RegistryError(
            "%s limits how much may be pulled, and the limit is reached%s" % (host, said),
            step="registry_request",
            subject=subject,
            details=details,
            hint="Wait, or log in for a higher limit.",
        )
    return RegistryError(
        "%s answered %d when asked for %s%s" % (host, status, subject, said),
        step="registry_request",
        subject=subject,
        details=details,
    )
