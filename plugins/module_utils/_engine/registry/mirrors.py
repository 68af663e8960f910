# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where an image may be pulled from: mirrors first, the registry itself last.

Mirrors are those that the registry module was told, those of ``registries.conf`` (containers-registries.conf(5)), and
for Docker Hub those of Docker's ``daemon.json``, in this order. Short names always mean Docker Hub: what
``registries.conf`` says about searching and aliases is not used. Pushes go to the registry itself.

A file that cannot be read is an error: it may block a registry, and a pull around the block would be worse.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, NoReturn, Optional

from ..errors import RegistryError, StateError, UsageError
from ..tuples import NamedTuple
from . import toml
from .transport import Origin, origin

HUB = "docker.io"
DAEMON = "/etc/docker/daemon.json"
CONF = "/etc/containers/registries.conf"
_LIMIT = 1 << 20


class Location(NamedTuple):
    """``host`` as in references; ``plain``: by http; ``insecure``: TLS is not verified, and http tried without it.
    ``source`` is the file that names it, "" for the registry itself."""

    host: str
    repository: str
    plain: bool
    insecure: bool
    source: str

    @property
    def address(self) -> str:
        """``host:port`` of https, as the transport keeps it for hosts that need not be verified."""
        where = origin("https://" + self.host)
        return "%s:%d" % (where.host, where.port)


def locations(own: str, host: str, repository: str, by_digest: bool) -> list[Location]:
    """``own``: the engine's file of mirrors. Raises ``UsageError`` (a file of the host's is damaged), ``StateError``
    (ours is), ``RegistryError`` (the registry is blocked)."""
    found = [_from_url(url, repository, own) for url in load(own).get(host, [])]
    configured, primary = _configured(host, repository, by_digest)
    found += configured
    daemon = _daemon()
    if host == HUB:
        found += [_from_url(url, repository, DAEMON) for url in _strings(daemon, "registry-mirrors", DAEMON)]
    if _listed(primary.host, _strings(daemon, "insecure-registries", DAEMON)):
        primary = primary._replace(insecure=True)
    seen: dict[tuple[str, str], Location] = {}
    for one in [*found, primary]:
        seen.setdefault((one.host, one.repository), one)
    seen.pop((primary.host, primary.repository))
    return [*seen.values(), primary]


def check(url: str) -> str:
    """A mirror as ``http(s)://host[:port][/path]``, in normal form; without a scheme it is https. Raises
    ``UsageError``."""
    text = url if "://" in url else "https://" + url
    try:
        where = origin(text)
    except RegistryError as error:
        raise UsageError("mirrors: %s" % error.msg, step="validate", path="mirrors") from None
    if not set(text).isdisjoint("?# "):
        raise UsageError("mirrors: %s has more than a host and a path" % url, step="validate", path="mirrors")
    _scheme, _colon, rest = text.partition("://")
    return "%s://%s" % (where.scheme, rest.rstrip("/"))


def _from_url(url: str, repository: str, source: str) -> Location:
    try:
        where = origin(url)
    except RegistryError as error:
        _damaged(source, error.msg)
    host, _slash, path = url.partition("://")[2].rstrip("/").partition("/")
    plain = where.scheme == "http"
    return Location(host, "%s/%s" % (path, repository) if path else repository, plain, plain, source)


# -- ours ------------------------------------------------------------------------------------------------------------


def load(own: str) -> dict[str, list[str]]:
    """``{registry: [mirror URL]}``. Raises ``StateError``."""
    try:
        with open(own, "rb") as stream:
            document = json.loads(stream.read(_LIMIT))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not all(_is_strings(urls) for urls in document.values()):
        raise StateError(
            "%s is not a file of mirrors" % own, step="read_mirrors", path=own, hint="Remove it and set them again."
        )
    return document


def store(own: str, host: str, urls: Sequence[str]) -> None:
    """Remember the mirrors of ``host`` instead of those before. Raises ``KernelError``."""
    from .credentials import locked_replace

    def change() -> dict[str, Any]:
        document = load(own)
        document.pop(host, None)
        if urls:
            document[host] = list(urls)
        return document

    locked_replace(own, change, host)


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# -- Docker's --------------------------------------------------------------------------------------------------------


def _daemon() -> dict[str, Any]:
    text = _read(DAEMON)
    try:
        document = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        _damaged(DAEMON, str(error)[:200])
    if not isinstance(document, dict):
        _damaged(DAEMON, "it is no JSON object")
    return document


def _strings(document: dict[str, Any], key: str, path: str) -> list[str]:
    value = document.get(key) or []
    if not _is_strings(value):
        _damaged(path, "%s is not a list of strings" % key)
    return list(value)


def _listed(host: str, entries: list[str]) -> bool:
    """Whether ``insecure-registries`` has the registry: by host[:port], or by a network its address is in."""
    if host in entries:
        return True
    networks = [entry for entry in entries if "/" in entry]
    if not networks:
        return False
    import ipaddress

    where: Origin = origin("https://" + host)
    try:
        address = ipaddress.ip_address(where.host)
        return any(address in ipaddress.ip_network(entry, strict=False) for entry in networks)
    except ValueError:
        return False


# -- Podman's --------------------------------------------------------------------------------------------------------


def _configured(host: str, repository: str, by_digest: bool) -> tuple[list[Location], Location]:
    """(mirrors, the registry itself), which may have moved elsewhere."""
    name = "%s/%s" % (host, repository)
    entry, source = _longest(_entries(), name)
    if entry is None:
        return [], Location(host, repository, False, False, "")
    prefix = str(entry.get("prefix") or entry.get("location") or "")
    if entry.get("blocked") is True:
        raise RegistryError("%s is blocked by %s" % (prefix, source), step="choose_mirror", subject=name, path=source)
    rest = "" if prefix.startswith("*.") else name[len(prefix) :]
    mirrors = []
    for mirror in entry.get("mirror") or []:
        which = mirror.get("pull-from-mirror") or ("digest-only" if entry.get("mirror-by-digest-only") else "all")
        if (which == "digest-only" and not by_digest) or (which == "tag-only" and by_digest):
            continue
        # Below a prefix with a wildcard, a mirror has the repositories of all its hosts.
        tail = "/" + repository if prefix.startswith("*.") else rest
        mirrors.append(_place(str(mirror.get("location") or "") + tail, mirror, source))
    moved = str(entry.get("location") or "")
    own = _place(moved + rest, entry, source) if moved and not prefix.startswith("*.") else None
    primary = own or Location(host, repository, False, entry.get("insecure") is True, "")
    return mirrors, primary._replace(source="")


def _place(name: str, entry: dict[str, Any], source: str) -> Location:
    host, slash, repository = name.partition("/")
    if not host or not slash or not repository:
        _damaged(source, "%r is no location" % name[:200])
    try:
        origin("https://" + host)
    except RegistryError as error:
        _damaged(source, error.msg)
    return Location(host, repository, False, entry.get("insecure") is True, source)


def _longest(entries: list[tuple[dict[str, Any], str]], name: str) -> tuple[Optional[dict[str, Any]], str]:
    best: tuple[int, Optional[dict[str, Any]], str] = (-1, None, "")
    for entry, source in entries:
        prefix = str(entry.get("prefix") or entry.get("location") or "")
        if _matches(prefix, name) and len(prefix) >= best[0]:
            best = (len(prefix), entry, source)
    return best[1], best[2]


def _matches(prefix: str, name: str) -> bool:
    if prefix.startswith("*."):
        host = name.partition("/")[0].partition(":")[0]
        return host.endswith(prefix[1:])
    return bool(prefix) and (name == prefix or name.startswith(prefix + "/"))


def _entries() -> list[tuple[dict[str, Any], str]]:
    """All ``[[registry]]`` tables with their files. Of those with the same prefix the last counts."""
    main = os.environ.get("CONTAINERS_REGISTRIES_CONF") or CONF
    found: list[tuple[dict[str, Any], str]] = []
    for path in [main, *_fragments(main + ".d")]:
        try:
            document = toml.loads(_read(path))
        except toml.TomlError as error:
            _damaged(path, str(error))
        entries = document.get("registry") or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            _damaged(path, "registry is not an array of tables")
        for entry in entries:
            mirrors = entry.get("mirror") or []
            if not isinstance(mirrors, list) or not all(isinstance(mirror, dict) for mirror in mirrors):
                _damaged(path, "registry.mirror is not an array of tables")
            found.append((entry, path))
    return found


def _fragments(directory: str) -> list[str]:
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".conf"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        _damaged(directory, error.strerror or str(error))
    return ["%s/%s" % (directory, name) for name in names]


def _read(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            return stream.read(_LIMIT).decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        _damaged(path, getattr(error, "strerror", None) or "it is not UTF-8")


def _damaged(path: str, why: str) -> NoReturn:
    raise UsageError("Cannot use %s: %s" % (path, why), step="choose_mirror", path=path)
