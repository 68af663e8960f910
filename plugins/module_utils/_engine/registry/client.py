# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The distribution protocol's reading half: manifests, blobs, tags, catalog.

Every answer is held against what it was asked for; nothing here writes to disk.
"""

from __future__ import annotations

import hashlib
from typing import Any, Optional

from ..errors import AuthError, IntegrityError, NotFound, RegistryError
from ..tuples import NamedTuple
from . import mediatypes as media
from . import replies
from .session import Session
from .transport import Response, Transport, joined, origin

PAGE = 1000
PAGE_LIMIT = 1000
NAME_LIMIT = 1_000_000
_LIST_LIMIT = 16 << 20
_HEX = frozenset("0123456789abcdef")


class Head(NamedTuple):
    """What a HEAD of a manifest tells; ``size`` is -1 where it does not. Advisory until the bytes have been hashed."""

    digest: str
    size: int
    media_type: str


class BlobStream:
    """A blob from ``offset`` on. The registry may ignore a range: look at ``offset``, not at what was asked."""

    __slots__ = ("_response", "offset", "total")

    def __init__(self, response: Response, offset: int, total: int) -> None:
        self._response = response
        self.offset = offset
        self.total = total  # bytes of the whole blob as the registry says, or -1

    def read(self, size: int = 256 * 1024) -> bytes:
        """At most ``size`` bytes as they come in; b"" at the end. Raises ``transport.Broken``."""
        return self._response.read(size)

    def close(self) -> None:
        self._response.close()


class RegistryClient:
    """``host`` is the registry as references name it. ``repository`` parameters are without it (``library/busybox``),
    already checked by ``images.reference``."""

    def __init__(self, host: str, transport: Transport, plain: bool = False) -> None:
        self.host = host
        self.session = Session(host, transport, plain)

    def ping(self) -> dict[str, Any]:
        """``{url, auth: none|basic|bearer, logged_in, version}``. Raises ``AuthError`` when the known login is
        refused; a registry that wants a login we do not have is reported, not an error."""
        session = self.session
        try:
            response = session.request("GET", "/v2/", scope="", subject="the registry's API", limit=_LIST_LIMIT)
        except AuthError:
            if session.auth.logged_in("") or session.auth.method == "none":
                raise
            return {"url": session.base, "auth": session.auth.method, "logged_in": False, "version": ""}
        version = str(response.headers.get("docker-distribution-api-version") or "")
        if response.status != 200 or replies.is_html(response):
            raise replies.refusal(response, "its API (/v2/)", self.host)
        logged_in = session.auth.method != "none" and session.auth.logged_in("")
        return {"url": session.base, "auth": session.auth.method, "logged_in": logged_in, "version": version}

    def head_manifest(self, repository: str, reference: str, *, scope: str = "") -> Optional[Head]:
        """What ``reference`` (tag or digest) points to now; None when the registry does not say it in a HEAD.
        ``scope``: another than that of a pull.

        Raises ``NotFound``, ``AuthError``, ``RegistryError``.
        """
        response = self._manifest("HEAD", repository, reference, scope)
        status, headers = response.status, response.headers
        if status in (400, 405, 501):
            response.close()
            return None
        if status != 200:
            raise replies.refusal(response, self._subject(repository, reference), self.host)
        response.close()
        digest = str(headers.get("docker-content-digest") or "").strip()
        if not _is_digest(digest):
            return None
        kind = str(headers.get("content-type") or "").partition(";")[0].strip()
        return Head(digest, replies.number(headers.get("content-length")), kind)

    def get_manifest(self, repository: str, reference: str, *, scope: str = "") -> tuple[bytes, str, str]:
        """(bytes, content type, digest of the bytes). When ``reference`` is a digest, the bytes have it.

        Raises ``NotFound``, ``AuthError``, ``RegistryError``, ``IntegrityError``.
        """
        subject = self._subject(repository, reference)
        response = self._manifest("GET", repository, reference, scope)
        if response.status != 200:
            raise replies.refusal(response, subject, self.host)
        if replies.is_html(response):
            raise replies.refusal(response, "the manifest of " + subject, self.host)
        kind = str(response.headers.get("content-type") or "")
        data = response.content
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if _is_digest(reference) and digest != reference:
            raise IntegrityError(
                "%s sent a manifest with digest %s when asked for %s; refused" % (self.host, digest, reference),
                step="pull_manifest",
                subject=subject,
            )
        return data, kind, digest

    def open_blob(self, repository: str, digest: str, offset: int = 0) -> BlobStream:
        """The blob's bytes from ``offset`` on, or from 0 where the registry cannot do ranges or the range is past the
        end (416). Nothing is verified here. Raises as ``get_manifest``."""
        path = "/v2/%s/blobs/%s" % (repository, digest)
        scope, subject = pull_scope(repository), "blob %s of %s" % (digest, repository)
        headers = {"Range": "bytes=%d-" % offset} if offset else {}
        response = self.session.request("GET", path, scope=scope, subject=subject, headers=headers)
        if response.status == 416 and offset:
            response.abandon()
            offset = 0
            response = self.session.request("GET", path, scope=scope, subject=subject)
        if response.status == 206 and offset:
            start, total = _content_range(str(response.headers.get("content-range") or ""))
            if start == offset:
                return BlobStream(response, offset, total)
            response.abandon()
            raise RegistryError(
                "%s sent another part of %s than the one asked for" % (self.host, subject),
                step="pull_blob",
                subject=subject,
            )
        if response.status != 200:
            raise replies.refusal(response, subject, self.host)
        if replies.is_html(response):
            raise replies.refusal(response, subject, self.host)
        return BlobStream(response, 0, replies.number(response.headers.get("content-length")))

    def tags(self, repository: str) -> list[str]:
        """All tags of a repository, sorted as the registry sorts them. Raises ``NotFound`` for an unknown one."""
        path = "/v2/%s/tags/list" % repository
        return self._paged(path, "tags", pull_scope(repository), "the tags of %s" % repository)

    def catalog(self) -> list[str]:
        """All repositories, where the registry lists them; ``RegistryError`` (``AuthError``) where not."""
        try:
            return self._paged("/v2/_catalog", "repositories", "registry:catalog:*", "the list of repositories")
        except NotFound as error:
            raise RegistryError(
                "%s does not list its repositories" % self.host, step="registry_list", subject=self.host
            ) from error

    def _manifest(self, method: str, repository: str, reference: str, scope: str) -> Response:
        return self.session.request(
            method,
            "/v2/%s/manifests/%s" % (repository, reference),
            scope=scope or pull_scope(repository),
            subject=self._subject(repository, reference),
            headers={"Accept": media.ACCEPT},
            limit=media.MANIFEST_LIMIT if method == "GET" else None,
        )

    def _subject(self, repository: str, reference: str) -> str:
        return "%s/%s%s%s" % (self.host, repository, "@" if _is_digest(reference) else ":", reference)

    def _paged(self, path: str, field: str, scope: str, subject: str) -> list[str]:
        items: list[str] = []
        target = "%s?n=%d" % (path, PAGE)
        for _page in range(PAGE_LIMIT):
            response = self.session.request("GET", target, scope=scope, subject=subject, limit=_LIST_LIMIT)
            if response.status != 200:
                raise replies.refusal(response, subject, self.host)
            link = str(response.headers.get("link") or "")
            here = response.url
            page = _names(response.content, field, subject, self.host)
            items += page
            if len(items) > NAME_LIMIT:
                break
            following = next_page(link, here)
            # A page without anything new would be asked for for ever.
            if not following or not page or following == here:
                return items
            if origin(following) != self.session.auth.home:
                raise RegistryError(
                    "%s continues %s on another host (%s); refused" % (self.host, subject, origin(following).host),
                    step="registry_list",
                    subject=subject,
                )
            target = following
        raise RegistryError("%s never ends %s" % (self.host, subject), step="registry_list", subject=subject)


def pull_scope(repository: str) -> str:
    return "repository:%s:pull" % repository


def _is_digest(text: str) -> bool:
    return len(text) == 71 and text.startswith("sha256:") and _HEX.issuperset(text[7:])


def _content_range(value: str) -> tuple[int, int]:
    """``bytes 10-99/100`` → (10, 100); (-1, -1) when unreadable, total -1 for ``*``."""
    unit, _space, rest = value.strip().partition(" ")
    span, _slash, total = rest.partition("/")
    start = replies.number(span.partition("-")[0])
    return (start, replies.number(total)) if unit.lower() == "bytes" and start >= 0 else (-1, -1)


def _names(body: bytes, field: str, subject: str, host: str) -> list[str]:
    import json

    try:
        value = json.loads(body)[field] or []
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
    except (ValueError, KeyError, TypeError, RecursionError):
        value = None
    raise RegistryError("%s did not answer with %s" % (host, subject), step="registry_list", subject=subject)


def next_page(link: str, here: str) -> str:
    """The absolute URL of ``Link: <...>; rel="next"``, or "". Raises ``RegistryError``."""
    for part in link.split(","):
        target, _semicolon, parameters = part.strip().partition(";")
        if target.startswith("<") and target.endswith(">") and "next" in parameters:
            return joined(here, target[1:-1])
    return ""
