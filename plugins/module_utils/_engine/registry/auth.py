# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who we are to a registry: challenges, Basic, and Bearer tokens (distribution-spec's token protocol).

Only the registry itself is listened to: a challenge from the target of a redirect is ignored, or any host a blob's
address leads to could ask for the registry's password (ContainerDrip, CVE-2020-15157).
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from ..errors import AuthError, RegistryError
from ..tuples import NamedTuple
from .transport import Broken, Origin, is_loopback, origin

if TYPE_CHECKING:
    from .credentials import Credential
    from .transport import Transport

CLIENT_ID = "wharf.engine"
ACR_USER = "00000000-0000-0000-0000-000000000000"
ENTRA = ("https://sts.windows.net/", "https://login.microsoftonline.com/")
TOKEN_LIMIT = 1 << 20
HEADER_LIMIT = 16 * 1024

_TOKEN_LETTERS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Challenge(NamedTuple):
    """``scheme`` and parameter names are lower case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(values: Sequence[str]) -> list[Challenge]:
    """All challenges of all ``WWW-Authenticate`` headers. What cannot be read ends the list; nothing is raised.

    RFC 9110: ``scheme key=token, key="quoted, with \\" escapes", scheme2 ...``; commas separate both parameters and
    challenges, so a word not followed by ``=`` begins the next challenge.
    """
    result: list[Challenge] = []
    for value in values:
        _parse_one(value[:HEADER_LIMIT], result)
    return result


def _parse_one(text: str, result: list[Challenge]) -> None:
    position = 0
    while True:
        position = _skip(text, position, " \t,")
        word, position = _word(text, position)
        if not word:
            return
        after = _skip(text, position, " \t")
        if text[after : after + 1] != "=":
            result.append(Challenge(word.lower(), {}))
            continue
        if not result:
            return
        value, position = _value(text, _skip(text, after + 1, " \t"))
        result[-1].parameters.setdefault(word.lower(), value)


def _skip(text: str, position: int, letters: str) -> int:
    while position < len(text) and text[position] in letters:
        position += 1
    return position


def _word(text: str, position: int) -> tuple[str, int]:
    start = position
    while position < len(text) and text[position] in _TOKEN_LETTERS:
        position += 1
    return text[start:position], position


def _value(text: str, position: int) -> tuple[str, int]:
    if text[position : position + 1] != '"':
        start = position
        while position < len(text) and text[position] not in ", \t":
            position += 1
        return text[start:position], position
    letters = []
    position += 1
    while position < len(text) and text[position] != '"':
        if text[position] == "\\":
            position += 1
        letters.append(text[position : position + 1])
        position += 1
    return "".join(letters), position + 1


class Authenticator:
    """The login state of one registry; shared by threads. ``home`` is set by the session once the scheme is known."""

    def __init__(self, host: str, transport: Transport) -> None:
        self.host = host
        self.home: Optional[Origin] = None
        self.method = "none"
        self._transport = transport
        self._lock = threading.Lock()
        self._challenge: Optional[Challenge] = None
        self._tokens: dict[str, tuple[str, float]] = {}
        self._credentials: dict[str, Optional[Credential]] = {}

    def header(self, scope: str) -> Optional[str]:
        """The ``Authorization`` to send with the first try: None until the registry has asked for one."""
        with self._lock:
            if self._challenge is None:
                return None
            if self._challenge.scheme == "basic":
                return self._basic(scope)
            token, expires = self._tokens.get(scope, ("", 0.0))
            if token and self._transport.clock() < expires:
                return "Bearer " + token
            return "Bearer " + self._fetch(self._challenge, scope)

    def answer(self, values: Sequence[str], scope: str, used: Optional[str]) -> str:
        """After a 401: the ``Authorization`` to try once more with. ``used`` is what was refused.

        Raises ``AuthError`` when there is nothing (new) to offer.
        """
        challenges = parse_challenges(values)
        bearer = next((c for c in challenges if c.scheme == "bearer" and c.parameters.get("realm")), None)
        basic = next((c for c in challenges if c.scheme == "basic"), None)
        with self._lock:
            if bearer is not None:
                self.method = "bearer"
                self._challenge = bearer
                token, expires = self._tokens.get(scope, ("", 0.0))
                if token and "Bearer " + token != used and self._transport.clock() < expires:
                    return "Bearer " + token  # another thread has been faster
                return "Bearer " + self._fetch(bearer, scope)
            if basic is None:
                self._refuse("asks for a login, but in no way this engine knows (%s)" % _schemes(challenges))
            self.method = "basic"
            header = self._basic(scope)
            if header is None:
                self._refuse("asks for user name and password, and none are known for it", login=True)
            if header == used:
                self._refuse("refused the user name or password%s" % self._origin_of(scope))
            self._challenge = basic
            return header

    def refused(self, scope: str) -> None:
        """After the second 401. Raises ``AuthError`` if the login is surely what is wrong: a token may also stand for
        too little, which the registry's own words tell better."""
        with self._lock:
            if self.method == "basic":
                self._refuse("refused the user name or password%s" % self._origin_of(scope))

    def logged_in(self, scope: str) -> bool:
        with self._lock:
            return self._credential(scope) is not None

    def _credential(self, scope: str) -> Optional[Credential]:
        repository = scope.split(":")[1] if scope.startswith("repository:") else ""
        if repository not in self._credentials:
            self._credentials[repository] = self._transport.credential(self.host, repository)
        return self._credentials[repository]

    def _origin_of(self, scope: str) -> str:
        credential = self._credential(scope)
        return " (they are from %s)" % credential.source if credential and credential.source else ""

    def _refuse(self, words: str, *, login: bool = False) -> NoReturn:
        raise AuthError(
            "%s %s" % (self.host, words),
            step="registry_login",
            subject=self.host,
            hint="Log in with the registry module." if login else None,
        )

    def _basic(self, scope: str) -> Optional[str]:
        credential = self._credential(scope)
        if credential is None or not credential.username:
            return None
        return basic_header(credential.username, credential.password)

    def _fetch(self, challenge: Challenge, scope: str) -> str:
        """A new token from the realm. Called with the lock held: threads that need the same token wait for it."""
        credential = self._credential(scope)
        if credential is not None and credential.registry_token:
            return str(credential.registry_token)
        realm = challenge.parameters["realm"]
        where = self._check_realm(realm, credential is not None)
        # The registry's own words for what it wants come first; a wildcard challenge names no scope.
        asked = "%s %s" % (scope, challenge.parameters.get("scope", ""))
        wanted = list(dict.fromkeys(asked.split()))
        service = challenge.parameters.get("service", "")
        response = self._request(realm, service, wanted, credential)
        if response.status != 200:
            text = _error_text(response.body(TOKEN_LIMIT))
            if response.status in (401, 403):
                known = "refused the login%s" % self._origin_of(scope) if credential else "gives no anonymous access"
                self._refuse("%s%s" % (known, ": " + text if text else ""), login=credential is None)
            raise Broken(
                "The token service %s answered %d%s" % (where.host, response.status, " (%s)" % text if text else ""),
                "status",
                step="registry_token",
                subject=self.host,
            )
        token, lifetime = _read_token(response.body(TOKEN_LIMIT), where.host)
        self._tokens[scope] = (token, self._transport.clock() + lifetime * 0.9)
        return token

    def _check_realm(self, realm: str, with_credentials: bool) -> Origin:
        """Where tokens may be fetched: from the registry's host or its domain over a channel no worse than the
        registry's; without credentials from any https host that is not an inward address (SSRF)."""
        where, home = origin(realm), self.home
        same_host = home is not None and where.host == home.host
        if where.scheme == "http" and not (
            home is not None and home.scheme == "http" and (same_host or is_loopback(where.host))
        ):
            self._refuse("sends to a token service over plain http (%s); refused" % where.host)
        if same_host or where.host in self._transport.realms:
            return where
        inward = is_loopback(where.host) or _is_address(where.host)
        if inward and not (home is not None and is_loopback(home.host)):
            self._refuse("sends to a token service at %s, an address it has no business with; refused" % where.host)
        if with_credentials and not inward and not _related(self.host, where.host):
            self._refuse(
                "wants its password sent to %s, which is neither the registry nor of its domain; refused" % where.host
            )
        return where

    def _request(self, realm: str, service: str, scopes: list[str], credential: Optional[Credential]) -> Any:
        from urllib.parse import urlencode

        base: list[tuple[str, str]] = [("service", service)] if service else []
        if credential is not None and credential.username == ACR_USER and not credential.identity_token:
            credential = self._acr(realm, service, credential)
        if credential is not None and credential.identity_token:
            return self._grant(realm, base, scopes, "refresh_token", refresh_token=credential.identity_token)
        query = base + [("scope", item) for item in scopes]
        headers = {}
        if credential is not None and credential.username:
            query.append(("account", credential.username))
            headers["Authorization"] = basic_header(credential.username, credential.password)
        joint = "" if not query else ("&" if "?" in realm else "?")
        response = self._transport.follow("GET", realm + joint + urlencode(query), headers)
        if response.status in (404, 405) and credential is not None and credential.username:
            # A service that only speaks OAuth2 (distribution's token/oauth specification).
            response.discard()
            login = {"username": credential.username, "password": credential.password}
            return self._grant(realm, base, scopes, "password", access_type="online", **login)
        return response

    def _grant(self, realm: str, base: list[tuple[str, str]], scopes: list[str], kind: str, **fields: str) -> Any:
        from urllib.parse import urlencode

        form = [("grant_type", kind), *base, ("client_id", CLIENT_ID), ("scope", " ".join(scopes)), *fields.items()]
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._transport.follow("POST", realm, headers, urlencode(form).encode())

    def _acr(self, realm: str, service: str, credential: Credential) -> Credential:
        """Azure's user without a name has a token for a password: ACR's refresh token (``az acr login
        --expose-token``), or one of Microsoft Entra ID, which is exchanged for such a token first.
        https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md"""
        token = credential.password
        issuer = _issuer(token)
        if issuer.startswith(ENTRA):
            from urllib.parse import urlencode, urljoin

            form = {"grant_type": "access_token", "service": service or self.host, "access_token": token}
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            url = urljoin(realm, "/oauth2/exchange")
            response = self._transport.follow("POST", url, headers, urlencode(form).encode())
            body = response.body(TOKEN_LIMIT)
            if response.status != 200:
                text = _error_text(body)
                self._refuse("does not exchange the Entra ID token%s" % (": " + text if text else ""))
            token = _refresh_token(body, self.host)
        return credential._replace(username="", password="", identity_token=token)


def basic_header(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(("%s:%s" % (username, password)).encode()).decode("ascii")


def _schemes(challenges: Sequence[Challenge]) -> str:
    return ", ".join(challenge.scheme for challenge in challenges)[:100] or "no challenge"


def _related(registry: str, host: str) -> bool:
    """Whether ``host`` is in the registry's domain: ``auth.docker.io`` for ``registry-1.docker.io``. Domain means the
    name without its first label, unless that would be a public suffix such as ``co.uk``. No list of suffixes: the
    registry could ask for the password itself, so this guards against mistakes rather than against the registry."""
    registry = registry.partition(":")[0].lower()
    parent = registry.partition(".")[2]
    labels = parent.split(".")
    if len(labels) < 2 or (len(labels) == 2 and len(labels[0]) <= 3 and len(labels[1]) == 2):
        parent = registry
    return host == parent or host.endswith("." + parent)


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


def _read_token(body: bytes, host: str) -> tuple[str, float]:
    try:
        document = json.loads(body)
        token = document.get("token") or document.get("access_token")
        lifetime = document.get("expires_in") or 60
        if isinstance(token, str) and token and token.isascii() and token.isprintable() and " " not in token:
            return token, max(60.0, min(float(lifetime), 86400.0))
    except (ValueError, OverflowError, AttributeError, TypeError, RecursionError):
        document = None
    raise RegistryError(
        "The token service %s answered without a usable token" % host, step="registry_token", subject=host
    )


def _refresh_token(body: bytes, host: str) -> str:
    try:
        token = json.loads(body)["refresh_token"]
        if isinstance(token, str) and token:
            return token
    except (ValueError, KeyError, TypeError, RecursionError):
        token = ""
    raise RegistryError("%s exchanged the token for nothing" % host, step="registry_token", subject=host)


def _issuer(token: str) -> str:
    """The issuer that a JWT names, unverified, or "". It only decides which of two questions is asked."""
    try:
        part = token.split(".")[1]
        issuer = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["iss"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return ""
    return issuer if isinstance(issuer, str) else ""


def _error_text(body: bytes) -> str:
    from .replies import error_text

    return error_text(body)
