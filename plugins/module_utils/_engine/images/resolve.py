# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a reference to the one manifest that belongs on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Union

from ..errors import IntegrityError, NotFound, RegistryError
from ..tuples import NamedTuple
from . import platform as platforms
from .manifest import Descriptor, Index, Manifest, parse_manifest, require_image
from .platform import Platform

if TYPE_CHECKING:
    from ..registry.client import RegistryClient
    from .reference import Reference

DEPTH_LIMIT = 3


class Resolution(NamedTuple):
    """``digest`` is what the reference points to (often an index), ``manifest_digest`` what was chosen from it;
    ``documents`` are the bytes of all of them, outermost first."""

    digest: str
    manifest_digest: str
    manifest: Manifest
    documents: tuple[bytes, ...]
    indexed: bool


def wanted_platform(text: Union[str, Platform, None]) -> tuple[Platform, bool]:
    """(platform, whether it was asked for)."""
    if not text:
        return platforms.host_platform(), False
    return (text if isinstance(text, Platform) else platforms.parse(text)), True


def current_digest(client: RegistryClient, reference: Reference) -> str:
    """What the reference points to now: one HEAD, or a GET where the registry does not answer HEADs."""
    if reference.digest:
        return reference.digest
    tag = reference.tag or ""
    head = client.head_manifest(reference.path, tag)
    return head.digest if head is not None else client.get_manifest(reference.path, tag)[2]


def resolve(client: RegistryClient, reference: Reference, digest: str, wanted: Platform) -> Resolution:
    """Fetch ``digest`` and, through indexes, the manifest for ``wanted``. Everything is asked for by digest, so what
    is decided and what is stored are the same bytes even when the tag moves meanwhile.

    Raises ``NotFound`` (nothing for the platform), ``Unsupported`` (an artifact), ``RegistryError``,
    ``IntegrityError``.
    """
    subject = str(reference)
    documents: list[bytes] = []
    current = digest
    expected: Optional[Descriptor] = None
    for depth in range(DEPTH_LIMIT + 1):
        data, kind, _digest = client.get_manifest(reference.path, current)
        if expected is not None:
            _hold_against(expected, data, subject)
        documents.append(data)
        parsed = parse_manifest(data, kind, subject=subject)
        if isinstance(parsed, Manifest):
            require_image(parsed, subject)
            return Resolution(digest, current, parsed, tuple(documents), depth > 0)
        expected = platforms.choose(parsed, wanted, subject=subject)
        _must_be_new(expected, parsed, current, subject)
        current = expected.digest
    raise RegistryError(
        "%s is an index of indexes more than %d deep" % (subject, DEPTH_LIMIT), step="pull_manifest", subject=subject
    )


def _must_be_new(entry: Descriptor, index: Index, digest: str, subject: str) -> None:
    if entry.digest == digest:  # cannot be true of honest bytes; says so rather than asking three times
        raise RegistryError("%s is an index that lists itself" % subject, step="pull_manifest", subject=subject)


def _hold_against(entry: Descriptor, data: bytes, subject: str) -> None:
    if len(data) != entry.size:
        raise IntegrityError(
            "The manifest %s of %s has %d bytes, not the promised %d" % (entry.digest, subject, len(data), entry.size),
            step="pull_manifest",
            subject=subject,
        )


def suits(config: dict[str, Any], wanted: Platform) -> bool:
    """Whether an image with this config runs on ``wanted``."""
    return of_config(config) in platforms.preferences(wanted)


def of_config(config: dict[str, Any]) -> Platform:
    return platforms.normalise(
        config.get("os") or "linux", config.get("architecture") or "", config.get("variant") or ""
    )


def check_platform(config: dict[str, Any], wanted: Platform, asked: bool, subject: str) -> str:
    """A manifest without an index is for one platform only. Another than the host's is taken with a warning, which is
    returned ("" if all is well); another than was asked for is refused with ``NotFound``. Where an index chose the
    manifest, callers pass ``asked=False``: some builders write the wrong architecture into the config."""
    if suits(config, wanted) or not config.get("architecture"):
        return ""
    actual = of_config(config)
    if asked:
        raise NotFound(
            "%s was found but does not match the specified platform: wanted %s, actual: %s" % (subject, wanted, actual),
            step="choose_platform",
            subject=subject,
            path="platform",
            details={"available": [str(actual)]},
        )
    return (
        "The requested image's platform (%s) does not match the expected platform (%s)" % (actual, wanted)
        if wanted != platforms.host_platform()
        else "The requested image's platform (%s) does not match the detected host platform (%s) and no specific "
        "platform was requested" % (actual, wanted)
    )
