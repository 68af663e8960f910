# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Image references in Docker's normal form, parsed without touching network or disk.

``busybox`` is ``docker.io/library/busybox:latest``. The first component is a registry only if it holds ``.`` or
``:``, is ``localhost``, or has an upper-case letter; else the registry is Docker Hub (as Docker's
``distribution/reference`` decides). Only sha256 digests: a digest becomes a path and part of a URL, so it is
matched exactly before any use (CVE-2024-3727).
"""

from __future__ import annotations

from typing import NoReturn, Optional

from ..errors import UsageError
from ..tuples import NamedTuple

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255
TAG_LIMIT = 128

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_HEX = frozenset("0123456789abcdef")
_ALNUM = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_TAG = _ALNUM | frozenset("_.-")
_WORD = _ALNUM | frozenset("_")


class Reference(NamedTuple):
    """``tag`` is None only when there is a digest; with both, the digest decides and the tag is decoration."""

    domain: str
    path: str
    tag: Optional[str]
    digest: Optional[str]

    @property
    def name(self) -> str:
        """``docker.io/library/busybox``: registry and repository."""
        return "%s/%s" % (self.domain, self.path)

    @property
    def familiar_name(self) -> str:
        """The name as people write it: ``busybox``, ``user/app``, ``registry.example.com/app``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        return _short(self.path)

    def canonical(self) -> str:
        """The key under which the store knows the image: ``name@digest`` if there is a digest, else ``name:tag``."""
        return "%s@%s" % (self.name, self.digest) if self.digest else "%s:%s" % (self.name, self.tag)

    def familiar(self) -> str:
        """As people write it: without the parts that Docker Hub implies, and with both tag and digest."""
        tag = ":" + self.tag if self.tag else ""
        return self.familiar_name + ("%s@%s" % (tag, self.digest) if self.digest else tag)

    def repo_digest(self, digest: str) -> str:
        """``name@digest``: what Docker lists under RepoDigests."""
        return "%s@%s" % (self.name, digest)

    def __str__(self) -> str:
        return self.canonical()


def familiar(canonical: str) -> str:
    """``parse(canonical).familiar()`` of a name in normal form, as the store has them, for a fraction of the price."""
    if not canonical.startswith(DEFAULT_DOMAIN + "/"):
        return canonical
    return _short(canonical[len(DEFAULT_DOMAIN) + 1 :])


def _short(path: str) -> str:
    """What follows ``docker.io/`` (a tag may hang on it) as people write it. ``library/a/b`` keeps its prefix, or it
    would be read as the repository ``a/b``; ``a.b/c`` keeps the registry's name, or ``a.b`` would be read as one."""
    short = path[len("library/") :] if path.startswith("library/") else path
    if "/" not in short:
        return short
    return "%s/%s" % (DEFAULT_DOMAIN, path) if _is_domain(path.partition("/")[0]) else path


def is_digest(text: object) -> bool:
    """Whether ``text`` is exactly ``sha256:`` and 64 lower-case hex digits."""
    return isinstance(text, str) and len(text) == 71 and text.startswith("sha256:") and _HEX.issuperset(text[7:])


def parse(text: str) -> Reference:
    """Parse and normalise a reference. Raises ``UsageError`` whose ``details["part"]`` names the part at fault:
    ``reference``, ``registry``, ``repository``, ``tag`` or ``digest``."""
    if not isinstance(text, str) or not text:
        _refuse(str(text), "reference", "it is empty")
    if text != text.strip() or not text.isprintable():
        _refuse(text, "reference", "it contains white space or control characters")
    if len(text) == 64 and _HEX.issuperset(text):
        _refuse(text, "repository", "64 hexadecimal digits are an image ID, not a name")
    rest, at, digest_text = text.partition("@")
    digest = _digest(text, digest_text) if at else None
    domain, path = _split_domain(rest)
    path, colon, tag_text = path.partition(":")
    tag = _tag(text, tag_text) if colon else None
    _check_domain(text, domain)
    if domain in ("index.docker.io", "registry-1.docker.io"):
        domain = DEFAULT_DOMAIN
    _check_path(text, path)
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = "library/" + path
    if len(domain) + 1 + len(path) > NAME_LIMIT:
        _refuse(text, "repository", "the name is longer than %d characters" % NAME_LIMIT)
    return Reference(domain, path, tag if tag or digest else DEFAULT_TAG, digest)


def _refuse(text: str, part: str, why: str) -> NoReturn:
    shown = text if len(text) <= 300 else text[:297] + "..."
    raise UsageError(
        "Invalid image reference %r: %s%s" % (shown, "" if part == "reference" else "bad %s: " % part, why),
        step="parse_reference",
        subject=shown,
        path="name",
        hint="Write it as [registry[:port]/]repository[:tag][@sha256:digest].",
        details={"part": part},
    )


def _split_domain(rest: str) -> tuple[str, str]:
    first, slash, path = rest.partition("/")
    return (first, path) if slash and _is_domain(first) else (DEFAULT_DOMAIN, rest)


def _is_domain(first: str) -> bool:
    """Whether what comes before the first slash is a registry."""
    return "." in first or ":" in first or first == "localhost" or first.lower() != first


def _digest(text: str, digest: str) -> str:
    if not is_digest(digest):
        algorithm, colon, _hex = digest.partition(":")
        if colon and algorithm in ("sha384", "sha512"):
            _refuse(text, "digest", "the algorithm %s is not supported, only sha256" % algorithm)
        _refuse(text, "digest", "it must be sha256: and 64 lower-case hexadecimal digits")
    return digest


def _tag(text: str, tag: str) -> str:
    if not tag:
        _refuse(text, "tag", "it is empty")
    if len(tag) > TAG_LIMIT:
        _refuse(text, "tag", "it is longer than %d characters" % TAG_LIMIT)
    if tag[0] not in _WORD or not _TAG.issuperset(tag):
        _refuse(text, "tag", "it must be letters, digits, '_', '.' and '-', and not begin with '.' or '-'")
    return tag


def check_registry(text: str) -> str:
    """A registry as host[:port], checked; Docker Hub's other names become ``docker.io``. Raises ``UsageError``."""
    host = text
    for prefix in ("https://", "http://"):
        if host.startswith(prefix):
            host = host[len(prefix) :]
    host = host.rstrip("/")
    for suffix in ("/v1", "/v2"):
        if host.endswith(suffix):
            host = host[: -len(suffix)]
    _check_domain(text, host)
    hub = ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com")
    return DEFAULT_DOMAIN if host in hub else host


def _check_domain(text: str, domain: str) -> None:
    host, port = domain, ""
    if domain.startswith("["):
        host, bracket, port = domain[1:].partition("]")
        if not bracket or not host or not frozenset("0123456789abcdefABCDEF:").issuperset(host):
            _refuse(text, "registry", "%r is not an IPv6 address in brackets" % domain)
        if port and not port.startswith(":"):
            _refuse(text, "registry", "%r has something but a port after the address" % domain)
        has_port, port = bool(port), port[1:]
    else:
        host, colon, port = domain.partition(":")
        has_port = bool(colon)
        for label in host.split("."):
            if not label or label[0] == "-" or label[-1] == "-" or not _ALNUM.issuperset(label.replace("-", "")):
                _refuse(text, "registry", "%r is not a host name" % host)
    if has_port and not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        _refuse(text, "registry", "%r is not a port" % port)


def _check_path(text: str, path: str) -> None:
    if not path:
        _refuse(text, "repository", "it is empty")
    if path.lower() != path:
        _refuse(text, "repository", "it must be lower case")
    for component in path.split("/"):
        if not component:
            _refuse(text, "repository", "it has an empty component")
        if not _good_component(component):
            _refuse(
                text,
                "repository",
                "%r must be lower-case letters and digits, with single '.', '_', '__' or dashes between them"
                % component,
            )


def _good_component(component: str) -> bool:
    """``[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*`` without ``re`` (an import of some ms on the path that changes nothing)."""
    separator = ""
    if component[0] not in _LOWER or component[-1] not in _LOWER:
        return False
    for letter in component:
        if letter in _LOWER:
            if separator and separator not in (".", "_", "__") and separator.strip("-"):
                return False
            separator = ""
        elif letter in "._-":
            separator += letter
        else:
            return False
    return True
