# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests to one registry: its scheme, login, and patience with what may pass (lost connections, 429, 5xx)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Optional

from ..errors import AuthError, RegistryError, WharfError
from . import replies
from .auth import Authenticator
from .transport import Broken, Response, Transport, origin

ATTEMPT_LIMIT = 5
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0

HUB = "docker.io"
HUB_API = "registry-1.docker.io"

Body = Callable[[], Any]  # gives bytes, or something with read()


class Patience:
    """The tries of one request: how long to wait before the next, and the error when it is enough.

    The pauses double with jitter from 0.5 s; ``Retry-After`` overrules them; all tries together end at the
    transport's timeout.
    """

    def __init__(self, transport: Transport, subject: str) -> None:
        self._transport = transport
        self._subject = subject
        self._deadline = transport.clock() + transport.timeout
        self._failures: list[str] = []

    def wait(self, error: WharfError, retry_after: Optional[float] = None) -> None:
        """Sleep before the next try, or raise ``error`` with all failures listed."""
        self._failures.append(error.msg)
        pause = min(_FIRST_PAUSE * 2 ** (len(self._failures) - 1), _LONGEST_PAUSE) * self._transport.jitter()
        if retry_after is not None:
            pause = max(retry_after, 0.1)
        hopeless = isinstance(error, Broken) and error.reason == "certificate"
        if hopeless or len(self._failures) >= ATTEMPT_LIMIT or self._transport.clock() + pause > self._deadline:
            raise self._final(error, retry_after)
        self._transport.pause(pause)

    def _final(self, error: WharfError, retry_after: Optional[float]) -> WharfError:
        error.details["attempts"] = list(self._failures)
        error.subject = error.subject or self._subject
        words = []
        if len(self._failures) > 1:
            words.append("gave up after %d tries" % len(self._failures))
        if retry_after is not None:
            words.append("it asks to wait %.0f seconds" % retry_after)
        if words:
            error.msg += "; " + ", ".join(words)
            error.args = (error.msg,)
        return error


class Session:
    """``host`` is the registry as references name it (``docker.io``, ``127.0.0.1:5000``). ``plain``: by http only."""

    def __init__(self, host: str, transport: Transport, plain: bool = False) -> None:
        self.host = host
        self.transport = transport
        self._plain = plain
        self.auth = Authenticator(host, transport)
        self._address = HUB_API if host == HUB else host
        self._lock = threading.Lock()
        self._base = ""

    @property
    def base(self) -> str:
        """``https://host`` as found out, or "" before the first answer."""
        return self._base

    def request(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        subject: str,
        headers: Optional[Mapping[str, str]] = None,
        limit: Optional[int] = None,
        body: Optional[Body] = None,
        once: bool = False,
    ) -> Response:
        """The registry's final answer to ``method path`` (path with its query, or a full URL of this registry), after
        redirects, login and retries. Any status but 401 and the passing ones can come back. With ``limit`` (bytes),
        the body of a 200 is read too, as ``content``, and a body that breaks off is asked for again. ``body`` makes
        what is sent, anew for each try. With ``once``, what broke off and the passing statuses are the caller's affair.

        A full URL of another host gets no login, and cannot ask for one.

        Raises ``RegistryError`` (``Broken`` after the last try), ``AuthError``.
        """
        patience = Patience(self.transport, subject)
        while True:
            try:
                response = self._authorised(method, path, scope, headers or {}, subject, body)
                if limit is not None and response.status == 200:
                    response.content = response.body(limit)
            except Broken as error:
                if once:
                    raise
                patience.wait(error)
                continue
            if once or not replies.should_retry(response.status):
                return response
            pause = replies.retry_after(response)
            patience.wait(replies.refusal(response, subject, self.host), pause)

    def _authorised(
        self,
        method: str,
        path: str,
        scope: str,
        headers: Mapping[str, str],
        subject: str,
        body: Optional[Body],
    ) -> Response:
        # A registry may send an upload elsewhere (Location); its login stays here.
        foreign = "://" in path and origin(path) != self.auth.home
        used = None if foreign else self.auth.header(scope)
        response = self._exchange(method, path, {**headers, "Authorization": used} if used else headers, body)
        if response.status != 401:
            return response
        self._only_from_home(response, subject)
        challenges = response.headers.getlist("www-authenticate")
        response.body(1 << 20)
        used = self.auth.answer(challenges, scope, used)
        response = self._exchange(method, path, {**headers, "Authorization": used}, body)
        if response.status == 401:
            self._only_from_home(response, subject)
            self.auth.refused(scope)
            error = replies.refusal(response, subject, self.host)
            raise error if isinstance(error, AuthError) else RegistryError(error.msg, subject=subject)
        return response

    def _only_from_home(self, response: Response, subject: str) -> None:
        """A 401 of a redirect's target is that host's affair; it learns nothing about the registry's login."""
        if origin(response.url) != self.auth.home:
            response.abandon()
            raise RegistryError(
                "%s redirected the request for %s to %s, which asks for a login of its own"
                % (self.host, subject, origin(response.url).host),
                step="registry_redirect",
                subject=subject,
            )

    def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: Optional[Body]) -> Response:
        if not self._base:
            with self._lock:
                if not self._base:
                    return self._find_scheme(method, path, headers, body)
        return self.transport.follow(method, self._url(path), headers, body() if body else None)

    def _url(self, path: str) -> str:
        return path if "://" in path else self._base + path

    def _find_scheme(self, method: str, path: str, headers: Mapping[str, str], body: Optional[Body]) -> Response:
        """The first request tells whether an insecure registry speaks TLS; plain HTTP is tried only when it does
        not, or when nobody listens for it."""
        plain, secure = "http://" + self._address, "https://" + self._address
        if self._plain:
            self.auth.home = origin(plain)
            response = self.transport.follow(method, plain + path, headers, body() if body else None)
            self._base = plain
            return response
        self.auth.home = origin(secure)
        try:
            response = self.transport.follow(method, secure + path, headers, body() if body else None)
            self._base = secure
            return response
        except Broken as error:
            # A server that cannot parse our TLS greeting may answer with anything, or hang up.
            hopeful = error.reason in ("plain", "refused", "reset", "tls", "protocol")
            if not hopeful or not self.transport.insecure(self.auth.home):
                raise
            first = error
        self.auth.home = origin(plain)
        try:
            response = self.transport.follow(method, plain + path, headers, body() if body else None)
        except Broken as error:
            raise (first if error.reason == "refused" and first.reason != "plain" else error)
        self._base = plain
        return response
