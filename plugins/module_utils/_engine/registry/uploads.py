# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The distribution protocol's writing half: blobs and manifests.

A blob is sent as one PUT when it is small, else in PATCHes of a limited size, so that what a broken line costs is at
most one of them, and usually nothing: the registry is asked how much it got (GET of the upload), and the rest
follows. Where an upload goes is the registry's choice (``Location``), and may be another host: that one gets the
bytes, never the login.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from ..errors import AuthError, IntegrityError, KernelError, NotFound, RegistryError
from . import replies
from .transport import Broken, Cancelled, Response, check_hop, joined, origin

if TYPE_CHECKING:
    from .client import RegistryClient

CHUNK = 32 << 20
SMALLEST_CHUNK = 1 << 20
PIECE = 128 * 1024
BARREN_LIMIT = 5  # tries in a row after which the registry has not a byte more
BREAK_LIMIT = 60  # a line that breaks after every few bytes must end, too

Report = Callable[[int], object]


class Slice:
    """A request body: ``length`` bytes of the file behind ``fd`` from ``start`` on."""

    def __init__(self, fd: int, start: int, length: int, sent: Report, stopped: Callable[[], bool]) -> None:
        self._fd = fd
        self._at = start
        self._end = start + length
        self._sent = sent
        self._stopped = stopped

    def read(self, _size: int = -1) -> bytes:
        """The next piece, of our size: urllib3 sends whatever it gets, and asks for little."""
        if self._stopped():
            raise Cancelled("cancelled")
        try:
            data = os.pread(self._fd, min(PIECE, self._end - self._at), self._at)
        except OSError as error:
            raise KernelError.wrap(error, "Cannot read a blob", step="push_blob") from error
        if not data and self._at < self._end:
            raise IntegrityError("A blob became shorter while it was sent", step="push_blob")
        self._at += len(data)
        self._sent(len(data))
        return data


class Uploader:
    """Writes to one ``repository`` (as in ``RegistryClient``). Shared by threads."""

    def __init__(self, client: RegistryClient, repository: str) -> None:
        self._client = client
        self._session = client.session
        self._transport = client.session.transport
        self._repository = repository
        self._chunk = CHUNK
        self.scope = "repository:%s:pull,push" % repository

    def has_blob(self, digest: str) -> bool:
        """Raises ``AuthError``, ``RegistryError``."""
        path = "/v2/%s/blobs/%s" % (self._repository, digest)
        response = self._session.request("HEAD", path, scope=self.scope, subject=self._what(digest))
        if response.status in (200, 404):
            response.close()
            return response.status == 200
        raise self._refusal(response, self._what(digest))

    def mount(self, digest: str, source: str) -> bool:
        """Let the registry take the blob from its repository ``source``. False when it does not: never an error, the
        blob is uploaded then."""
        path = "/v2/%s/blobs/uploads/?mount=%s&from=%s" % (self._repository, digest, source.replace("/", "%2F"))
        scope = "%s repository:%s:pull" % (self.scope, source)
        try:
            response = self._session.request(
                "POST", path, scope=scope, subject=self._what(digest), headers={"Content-Length": "0"}
            )
        except RegistryError:
            return False
        mounted = response.status == 201
        location = response.headers.get("location")
        if response.status == 202 and location:  # an upload was begun instead
            self._cancel(self._resolve(response, str(location)))
        response.discard()
        return mounted

    def upload(self, digest: str, size: int, fd: int, sent: Report, restart: Report) -> None:
        """Send the blob behind ``fd``. ``sent`` is called with the bytes of each piece, ``restart`` with the position
        from which pieces are sent (again).

        Raises ``AuthError``, ``RegistryError`` (``Broken`` after the last try), ``IntegrityError``.
        """
        _Upload(self, digest, size, fd, sent, restart).run()

    def put_manifest(self, reference: str, data: bytes, media_type: str) -> str:
        """Returns its digest. Raises ``AuthError``, ``RegistryError``, ``IntegrityError``."""
        subject = "%s/%s:%s" % (self._client.host, self._repository, reference)
        response = self._session.request(
            "PUT",
            "/v2/%s/manifests/%s" % (self._repository, reference),
            scope=self.scope,
            subject=subject,
            headers={"Content-Type": media_type, "Content-Length": str(len(data))},
            body=lambda: data,
        )
        if response.status not in (200, 201, 202):
            raise self._refusal(response, "the manifest of " + subject)
        response.discard()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        stored = str(response.headers.get("docker-content-digest") or digest).strip()
        if stored != digest:
            raise IntegrityError(
                "%s stored the manifest of %s as %s, but it was sent as %s"
                % (self._client.host, subject, stored, digest),
                step="push_manifest",
                subject=subject,
            )
        return digest

    def _what(self, digest: str) -> str:
        return "blob %s of %s" % (digest, self._repository)

    def _refusal(self, response: Response, subject: str) -> Exception:
        error = replies.refusal(response, subject, self._client.host)
        error.step = "push"
        if isinstance(error, AuthError):
            error.msg = error.msg.replace(
                "it does not exist, or this login may not read it", "this login may not write there"
            )
            error.args = (error.msg,)
        elif isinstance(error, NotFound):
            error.hint = "Some registries want the repository to be created first."
        return error

    def _resolve(self, response: Response, location: str) -> str:
        """The absolute URL of ``Location``. Raises ``RegistryError`` where no upload may go."""
        from urllib.parse import urlsplit

        home = self._session.auth.home or origin(response.url)
        target = joined(response.url, location)
        where = origin(target)
        if where.host == home.host and home.scheme == "https" and where.scheme == "http":
            # A registry behind a proxy that ends TLS and does not say so: its own address, in a manner of speaking.
            parts = urlsplit(target)
            return self._session.base + parts.path + ("?" + parts.query if parts.query else "")
        if where != home:
            check_hop(home, home, where)
        return target

    def _cancel(self, location: str) -> None:
        try:
            self._session.request(
                "DELETE", location, scope=self.scope, subject="an upload to " + self._repository, once=True
            ).discard()
        except RegistryError:
            return  # the registry drops it some day


class _Upload:
    """One blob on its way. ``_location`` is the upload's address, "" before it begins."""

    def __init__(self, to: Uploader, digest: str, size: int, fd: int, sent: Report, restart: Report) -> None:
        self._to = to
        self._digest = digest
        self._size = size
        self._fd = fd
        self._sent = sent
        self._restart = restart
        self._subject = to._what(digest)
        self._location = ""
        self._offset = 0
        self._least = 0  # the registry's smallest chunk (OCI-Chunk-Min-Length)
        self._verified = False

    def run(self) -> None:
        barren = breaks = best = 0
        while True:
            error: RegistryError
            try:
                if self._step():
                    return
                if self._offset > best:
                    barren, best = 0, self._offset
                    continue
                error = RegistryError(
                    "%s takes no more of %s than %d bytes" % (self._to._client.host, self._subject, best),
                    step="push_blob",
                    subject=self._subject,
                )
            except Broken as broken:
                error = broken
                breaks += 1
            barren, best = (0, self._offset) if self._offset > best else (barren + 1, best)
            hopeless = isinstance(error, Broken) and error.reason == "certificate"
            if hopeless or barren >= BARREN_LIMIT or breaks >= BREAK_LIMIT:
                raise error
            self._to._transport.pause(min(0.2 * 2**barren, 10.0) * self._to._transport.jitter())
            if self._location and self._recover():
                return

    def _step(self) -> bool:
        """Begin, send one chunk, or the last one. True when the registry has the blob."""
        if not self._location:
            self._begin()
        chunk = max(self._to._chunk, self._least)
        left = self._size - self._offset
        if left <= chunk:
            joint = "&" if "?" in self._location else "?"
            return self._finished(self._send("PUT", "%s%sdigest=%s" % (self._location, joint, self._digest), left))
        self._continued(self._send("PATCH", self._location, chunk), chunk)
        return False

    def _begin(self) -> None:
        to = self._to
        path = "/v2/%s/blobs/uploads/" % to._repository
        response = to._session.request(
            "POST", path, scope=to.scope, subject=self._subject, headers={"Content-Length": "0"}
        )
        location = response.headers.get("location")
        if response.status != 202 or not location:
            raise to._refusal(response, self._subject)
        self._least = max(0, min(replies.number(response.headers.get("oci-chunk-min-length")), 1 << 30))
        self._location, self._offset = to._resolve(response, str(location)), 0
        response.discard()

    def _send(self, method: str, url: str, length: int) -> Response:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
        if length and (method == "PATCH" or self._offset):
            headers["Content-Range"] = "%d-%d" % (self._offset, self._offset + length - 1)
        to = self._to

        def body() -> Slice:
            self._restart(self._offset)
            return Slice(self._fd, self._offset, length, self._sent, to._transport.cancelled.is_set)

        return to._session.request(
            method, url, scope=to.scope, subject=self._subject, headers=headers, body=body, once=True
        )

    def _continued(self, response: Response, length: int) -> None:
        if response.status not in (201, 202, 204):
            self._trouble(response)
            return
        location = response.headers.get("location")
        if location:
            self._location = self._to._resolve(response, str(location))
        response.discard()
        end = _end_of(str(response.headers.get("range") or ""))
        wanted = self._offset + length
        # A registry may have taken less than it was sent, and then says so.
        self._offset = end if self._offset < end <= wanted else wanted

    def _finished(self, response: Response) -> bool:
        if response.status not in (200, 201, 204):
            self._trouble(response)
            return False
        response.discard()
        stored = str(response.headers.get("docker-content-digest") or self._digest).strip()
        if stored != self._digest:
            self._mismatch("%s stored %s as %s" % (self._to._client.host, self._subject, stored))
        return True

    def _trouble(self, response: Response) -> None:
        """Set things right for the next step, or raise what the answer means."""
        status = response.status
        if replies.should_retry(status):
            pause = replies.retry_after(response)
            error = self._to._refusal(response, self._subject)
            if pause is not None and pause > self._to._transport.timeout:
                raise error
            if pause:
                self._to._transport.pause(pause)
            raise Broken(str(error), "status", step="push_blob", subject=self._subject)
        if status == 413 and max(self._to._chunk, self._least) > SMALLEST_CHUNK and self._size > SMALLEST_CHUNK:
            response.discard()
            self._to._chunk = max(min(self._to._chunk, self._size) // 4, SMALLEST_CHUNK)
            self._location = ""
            return
        if status in (404, 416):
            response.discard()
            raise Broken(
                "%s lost track of the upload of %s" % (self._to._client.host, self._subject),
                "status",
                step="push_blob",
                subject=self._subject,
            )
        if status == 400 and not self._verified:
            self._verify()
        raise self._to._refusal(response, self._subject)

    def _recover(self) -> bool:
        """After a break: what does the registry have? True if all of it: only the answer was lost."""
        if self._to.has_blob(self._digest):
            return True
        try:
            response = self._to._session.request(
                "GET", self._location, scope=self._to.scope, subject=self._subject, once=True
            )
        except Broken:
            return False  # as before; the next step breaks too, and counts
        location = response.headers.get("location")
        response.discard()
        end = _end_of(str(response.headers.get("range") or ""))
        if response.status not in (200, 204) or not 0 <= end <= self._size:
            self._location = ""  # it knows nothing of it: from the beginning
            return False
        if location:
            self._location = self._to._resolve(response, str(location))
        self._offset = end
        return False

    def _verify(self) -> None:
        """The registry says the bytes are not what they should be. Are ours?"""
        self._verified = True
        checksum, at = hashlib.sha256(), 0
        while True:
            data = os.pread(self._fd, 1 << 20, at)
            if not data:
                break
            checksum.update(data)
            at += len(data)
        if "sha256:" + checksum.hexdigest() != self._digest:
            self._mismatch("Blob %s is damaged on disk; pull the image again" % self._digest)

    def _mismatch(self, words: str) -> NoReturn:
        raise IntegrityError(words, step="push_blob", subject=self._subject)


def _end_of(value: str) -> int:
    """How many bytes ``Range: 0-N`` stands for; -1 when unreadable. Registries say 0-0 for nothing, too: a single
    byte sent twice is refused (416) and begun anew, which is better than a hole."""
    start, dash, end = value.strip().rpartition("=")[2].partition("-")
    last = replies.number(end) if start.strip() == "0" and dash else -1
    return last + 1 if last > 0 else last
