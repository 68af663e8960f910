# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A pull tries the mirrors of its registry one after the other, and the registry itself last."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ..errors import IntegrityError, NotFound, RegistryError, UntrustedError, WharfError

if TYPE_CHECKING:
    from ..registry.client import RegistryClient
    from ..registry.transport import Transport
    from .reference import Reference

T = TypeVar("T")

# What a mirror may do wrong without the pull being lost. A full disk or a bad option is no mirror's fault.
_PASSED_OVER = (RegistryError, NotFound, IntegrityError, UntrustedError)


def routed(
    reference: Reference,
    transport: Transport,
    attempt: Callable[[RegistryClient, Reference], T],
    warnings: list[str],
) -> T:
    """Call ``attempt(client, source)`` for each place until one succeeds; ``source`` is the reference as that place
    names it. A mirror that does not have the image is passed over silently, one that fails with a sentence in
    ``warnings``. The last error lists those before it (``details["mirrors"]``)."""
    from ..registry.client import RegistryClient

    if transport.mirrors is None:
        return attempt(RegistryClient(reference.domain, transport), reference)
    failures: list[dict[str, str]] = []
    places = transport.mirrors(reference.domain, reference.path, bool(reference.digest))
    for place in places:
        if place.insecure:
            transport.unverified_hosts.add(place.address)
        client = RegistryClient(place.host, transport, place.plain)
        try:
            return attempt(client, reference._replace(domain=place.host, path=place.repository))
        except _PASSED_OVER as error:
            if place is places[-1]:
                raise _told(error, failures) from error
            failures.append({"mirror": place.host, "error": error.msg, "from": place.source})
            if not isinstance(error, NotFound):
                warnings.append("The mirror %s was passed over: %s" % (place.host, error.msg))
    subject = str(reference)
    raise RegistryError("There is no place to pull %s from" % subject, step="choose_mirror", subject=subject)


def _told(error: WharfError, failures: list[dict[str, str]]) -> WharfError:
    if failures:
        error.details["mirrors"] = failures
        error.msg += "; before that, %s" % "; ".join("mirror %(mirror)s: %(error)s" % one for one in failures)
        error.args = (error.msg,)
    return error
