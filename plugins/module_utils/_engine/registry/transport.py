# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One HTTP exchange, and redirects: TLS, proxies, time limits, and the words for what went wrong.

urllib3 is imported by the first request, not by this module. Its own retries and redirects are off: what may be
retried, and where credentials may go, is decided here and in ``session``.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Optional

from ..errors import RegistryError, UsageError, WharfError
from ..tuples import NamedTuple
from . import certs, proxies

if TYPE_CHECKING:
    import ssl

    from .credentials import Credential
    from .mirrors import Location

USER_AGENT = "wharf.engine"
REDIRECT_LIMIT = 5
CHUNK = 256 * 1024
MINIMUM_RATE = 1024  # bytes per second, averaged over the timeout: below that, a transfer counts as stalled

_DEFAULT_PORTS = {"http": 80, "https": 443}
_DISCARD = 64 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)


class Broken(RegistryError):
    """An exchange that did not come to its end. ``reason``: dns, refused, timeout, reset, short, plain (no TLS at the
    other end), certificate, tls, protocol. All but ``certificate`` may be tried again."""

    def __init__(self, msg: str, reason: str, **fields: Any) -> None:
        super().__init__(msg, **fields)
        self.reason = reason
        self.details.setdefault("reason", reason)


class Cancelled(WharfError):
    """Another thread of the same transfer failed; this one stopped. Never the error a user sees."""


class Origin(NamedTuple):
    """Credentials belong to exactly one of these. ``host`` lower case, IPv6 addresses without brackets."""

    scheme: str
    host: str
    port: int


def origin(url: str) -> Origin:
    """Raises ``RegistryError`` for anything but a plain http(s) URL: other schemes, user names, no host."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RegistryError("Not a usable address: %r (%s)" % (url[:200], error), step="registry_url") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc or not url.isprintable():
        raise RegistryError("Not a usable http(s) address: %r" % url[:200], step="registry_url")
    return Origin(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme])


def joined(here: str, location: str) -> str:
    """The absolute URL of a ``Location`` or ``Link`` in the answer of ``here``. Raises ``RegistryError``."""
    from urllib.parse import urljoin

    try:
        return urljoin(here, location)
    except ValueError as error:
        raise RegistryError(
            "%s leads to no usable address: %r (%s)" % (origin(here).host, location[:200], error),
            step="registry_url",
            subject=origin(here).host,
        ) from None


def is_loopback(host: str) -> bool:
    """``localhost``, 127.0.0.0/8 or ::1, by the name alone (no lookup); ``host`` may carry a port."""
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    if host == "localhost":
        return True
    try:
        return socket.inet_aton(host)[0] == 127 if host.count(".") == 3 else host == "::1"
    except OSError:
        return False


def check_hop(home: Origin, here: Origin, target: Origin) -> None:
    """Whether a redirect from ``here`` may be followed. An outside registry has no business with what listens on this
    host's loopback or link-local addresses (a cloud's metadata service): that would be the attacker's request, made
    from inside."""
    why = ""
    if here.scheme == "https" and target.scheme != "https":
        why = "from https to plain http"
    elif is_loopback(target.host) and not is_loopback(home.host):
        why = "to this host's loopback"
    elif target.host.startswith(("169.254.", "fe80:")) and target.host != home.host:
        why = "to a link-local address"
    if why:
        raise RegistryError(
            "%s redirected %s (%s); refused" % (home.host, why, target.host),
            step="registry_redirect",
            subject=home.host,
        )


class Response:
    """Status, headers (case-insensitive, ``getlist``), final ``url``, and the body as it comes in."""

    __slots__ = ("_clock", "_mark", "_raw", "_seen", "_transport", "content", "headers", "status", "url")

    def __init__(self, transport: Transport, raw: Any, url: str) -> None:
        self._transport = transport
        self._raw = raw
        self._clock = transport.clock
        self._mark = self._clock()
        self._seen = 0
        self.status = int(raw.status)
        self.headers = raw.headers
        self.url = url
        self.content = b""  # the body, where the session was asked to read it

    def read(self, size: int = CHUNK) -> bytes:
        """At most ``size`` bytes, as soon as there are any; b"" at the end. Raises ``Broken``, ``Cancelled``."""
        if self._transport.cancelled.is_set():
            raise Cancelled("cancelled")
        try:
            data: bytes = self._raw.read1(size)
        except Exception as error:
            raise self._transport.explain(error, self.url) from error
        self._watch(len(data))
        return data

    def _watch(self, count: int) -> None:
        """A server that sends a byte now and then never runs into the socket's timeout; the average catches it."""
        self._seen += count
        passed = self._clock() - self._mark
        if passed < self._transport.timeout:
            return
        if self._seen < MINIMUM_RATE * passed and count:
            raise Broken(
                "%s sent only %d bytes in %.0f seconds" % (origin(self.url).host, self._seen, passed),
                "timeout",
                step="registry_read",
                hint="Raise timeout if the line is that slow.",
            )
        self._mark, self._seen = self._clock(), 0

    def body(self, limit: int) -> bytes:
        """The whole body; raises ``RegistryError`` past ``limit`` bytes, whatever Content-Length said."""
        chunks: list[bytes] = []
        total = 0
        while True:
            try:
                data = self.read(min(CHUNK, limit + 1 - total))
            except WharfError:
                self.abandon()
                raise
            if not data:
                self.close()
                return b"".join(chunks)
            chunks.append(data)
            total += len(data)
            if total > limit:
                self.abandon()
                raise RegistryError(
                    "%s sent more than %d bytes where no more are allowed" % (origin(self.url).host, limit),
                    step="registry_read",
                )

    def interrupt(self) -> None:
        """Wake the thread that reads this, from another thread: it sees the connection broken."""
        sock = getattr(self._raw.connection, "sock", None)
        try:
            if sock is not None:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # below TLS, which the reader is using
        except OSError:
            return  # broken already

    def close(self) -> None:
        """Give the connection back if the body was read to its end (or there is none: HEAD); else close it."""
        self._transport.forget(self)
        if self._raw.length_remaining == 0:
            self._raw.drain_conn()  # tells http.client that the answer is over
            self._raw.release_conn()
        else:
            self.abandon()

    def discard(self) -> None:
        """Have no interest in the body: read it if it is short, so that the connection can be used again."""
        length = self._raw.length_remaining
        if length is None or length > _DISCARD:
            self.abandon()
            return
        try:
            self.body(_DISCARD)
        except Broken:
            return  # it was of no interest

    def abandon(self) -> None:
        self._transport.forget(self)
        self._raw.close()


class Transport:
    """How to reach registries; shared by the threads of one pull at a time.

    ``timeout`` (seconds) is how long a registry may make no progress: for connecting, for the first byte, for all
    tries of a small request together, and as the window in which a transfer must keep a minimum rate. ``ca_path``
    (PEM file or directory) is trusted in addition to the system's authorities. Logins come from
    ``credentials(host, repository)``, by default ``credentials.lookup`` in ``auth_file`` and in the files that Docker
    and Podman keep. ``realms`` are hosts allowed to receive credentials for any registry. ``mirrors(host, repository,
    by_digest)`` says where to pull from (``mirrors.locations``); without it, that is the registry itself.
    """

    def __init__(
        self,
        *,
        validate_certs: bool = True,
        ca_path: Optional[str] = None,
        timeout: float = 60.0,
        auth_file: Optional[str] = None,
        credentials: Optional[Callable[[str, str], Optional[Credential]]] = None,
        realms: tuple[str, ...] = (),
        mirrors: Optional[Callable[[str, str, bool], list[Location]]] = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Optional[Callable[[float], object]] = None,
    ) -> None:
        if timeout is None or not 0 < timeout < float("inf"):
            raise UsageError("timeout must be more than 0 seconds", path="timeout", step="registry_connect")
        self.validate_certs = validate_certs
        self.ca_path = ca_path
        self.timeout = float(timeout)
        self.auth_file = auth_file
        self._credentials = credentials
        self.realms = realms
        self.mirrors = mirrors
        self.clock = clock
        self.cancelled = threading.Event()
        self._sleep = sleep
        self._lock = threading.Lock()
        self._live: set[Response] = set()
        self._managers: dict[tuple[bool, str, str], Any] = {}
        self._contexts: dict[tuple[bool, str], ssl.SSLContext] = {}
        self._directories: dict[Origin, str] = {}
        self.unverified_hosts: set[str] = set()  # declared insecure by the host's own configuration (mirrors)
        self._random = random.Random()

    def credential(self, host: str, repository: str) -> Optional[Credential]:
        if self._credentials is not None:
            return self._credentials(host, repository)
        from . import credentials

        return credentials.lookup(self.auth_file, host, repository) if self.auth_file else None

    def logged_in_as(self, credential: Credential) -> Transport:
        """The same ways, with this login instead of the stored ones."""
        return Transport(
            validate_certs=self.validate_certs,
            ca_path=self.ca_path,
            timeout=self.timeout,
            credentials=lambda _host, _repository: credential,
            realms=self.realms,
            clock=self.clock,
            sleep=self._sleep,
        )

    def insecure(self, where: Origin) -> bool:
        """Whether TLS to ``where`` is not verified and plain HTTP is tried when there is no TLS: asked for with
        ``validate_certs=False`` or by the host's configuration, or a loopback registry without a known authority
        (Docker's insecure 127.0.0.0/8)."""
        if not self.validate_certs or "%s:%d" % (where.host, where.port) in self.unverified_hosts:
            return True
        return is_loopback(where.host) and not self.ca_path and not certs.has_authorities(self._directory(where))

    def _directory(self, where: Origin) -> str:
        if where not in self._directories:
            self._directories[where] = certs.directory_for(*where)
        return self._directories[where]

    def pause(self, seconds: float) -> None:
        if self._sleep is not None:
            self._sleep(seconds)
        elif self.cancelled.wait(seconds):
            raise Cancelled("cancelled")

    def jitter(self) -> float:
        """0.5 to 1: many hosts that failed together must not come back together."""
        return 0.5 + self._random.random() / 2

    def cancel(self) -> None:
        """Make every thread that uses this transport stop soon (``Cancelled``), also those waiting for bytes."""
        self.cancelled.set()
        with self._lock:
            live = list(self._live)
        for response in live:
            response.interrupt()

    def forget(self, response: Response) -> None:
        with self._lock:
            self._live.discard(response)

    def close(self) -> None:
        with self._lock:
            for manager in self._managers.values():
                keys = manager.pools.keys()
                for key in keys:
                    pool = manager.pools.get(key)
                    if pool is not None:
                        pool.close()  # clear() leaves that to the garbage collector
                manager.clear()
            self._managers.clear()

    def send(self, method: str, url: str, headers: Mapping[str, str], body: Any = None) -> Response:
        """One request, one answer, whatever its status. ``body``: bytes, or something with ``read`` and its length in
        ``headers``. Raises ``Broken``."""
        if self.cancelled.is_set():
            raise Cancelled("cancelled")
        manager = self._manager(origin(url))
        try:
            raw = manager.request(
                method,
                url,
                headers={"User-Agent": USER_AGENT, **headers},
                body=body,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except Exception as error:
            raise self.explain(error, url) from error
        response = Response(self, raw, url)
        with self._lock:
            self._live.add(response)
        if self.cancelled.is_set():
            response.interrupt()
        return response

    def follow(self, method: str, url: str, headers: Mapping[str, str], body: Any = None) -> Response:
        """``send`` and at most five redirects. ``Authorization`` goes to the origin of ``url`` and nowhere else;
        from https to http nothing goes."""
        home = origin(url)
        for _hop in range(REDIRECT_LIMIT + 1):
            if origin(url) != home:
                headers = {key: value for key, value in headers.items() if key.lower() != "authorization"}
            response = self.send(method, url, headers, body)
            target = response.headers.get("location")
            if response.status not in _REDIRECTS or not target:
                return response
            response.discard()
            if method not in ("GET", "HEAD"):
                raise RegistryError("%s redirected a %s request" % (home.host, method), step="registry_redirect")
            target = joined(url, target)
            check_hop(home, origin(url), origin(target))
            url = target
        raise RegistryError(
            "%s redirected more than %d times" % (home.host, REDIRECT_LIMIT),
            step="registry_redirect",
            subject=home.host,
        )

    def _manager(self, where: Origin) -> Any:
        unverified, directory = self.insecure(where), self._directory(where)
        proxy = proxies.proxy_for(where.scheme, where.host, where.port)
        with self._lock:
            manager = self._managers.get((unverified, proxy, directory))
            if manager is None:
                from . import pools

                manager = pools.manager(proxy, self._context(unverified, directory), self.timeout)
                self._managers[(unverified, proxy, directory)] = manager
        return manager

    def _context(self, unverified: bool, directory: str) -> ssl.SSLContext:
        if (unverified, directory) not in self._contexts:
            from . import pools

            self._contexts[(unverified, directory)] = pools.tls_context(unverified, self.ca_path, directory)
        return self._contexts[(unverified, directory)]

    def explain(self, error: Exception, url: str) -> WharfError:
        """``Broken`` with a sentence for whatever urllib3, ssl, http.client or the kernel raised."""
        from . import pools

        if isinstance(error, WharfError):
            return error
        reason, words = pools.diagnose(error)
        where = origin(url)
        hints = {
            "certificate": pools.certificate_hint(error),
            "plain": "The registry speaks plain HTTP; set validate_certs to false to allow that.",
            "dns": "Check the registry's name and the host's name servers.",
            "refused": "Check the port, and that the registry runs and can be reached from this host.",
        }
        shown = "%s:%d" % ("[%s]" % where.host if ":" in where.host else where.host, where.port)
        hint = hints.get(reason)
        return Broken("%s: %s" % (shown, words), reason, step="registry_request", subject=where.host, hint=hint)
