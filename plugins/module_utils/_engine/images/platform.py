# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which manifest of an index belongs on this host: containerd's rules, in order of preference."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import NotFound, UsageError
from ..registry import mediatypes as media
from ..tuples import NamedTuple
from .manifest import Descriptor, Index

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "armhf": "arm",
    "armel": "arm",
    "armv5l": "arm",
    "armv5tel": "arm",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "loongarch64": "loong64",
    "mipsel": "mipsle",
    "mips64el": "mips64le",
}
_IMPLIED_VARIANTS = {
    "armhf": "v7",
    "armel": "v6",
    "armv5l": "v5",
    "armv5tel": "v5",
    "armv6l": "v6",
    "armv7l": "v7",
    "armv8l": "v7",  # a 32-bit kernel or personality on a v8 processor runs v7 code
}
_WORD = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.-")
_ATTESTATION = "vnd.docker.reference.type"


class Platform(NamedTuple):
    """Normalised: Go's names, and ``variant`` "" where it is the architecture's default (amd64/v1, arm64/v8)."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


def normalise(system: str, architecture: str, variant: str = "") -> Platform:
    system, architecture, variant = system.lower() or "linux", architecture.lower(), variant.lower()
    variant = variant or _IMPLIED_VARIANTS.get(architecture, "")
    architecture = _ARCHITECTURES.get(architecture, architecture)
    if variant and variant[0].isdigit():
        variant = "v" + variant
    if architecture == "arm":
        variant = variant or "v7"
    elif (architecture, variant) in (("amd64", "v1"), ("arm64", "v8"), ("arm64", "v8.0")):
        variant = ""
    return Platform("darwin" if system == "macos" else system, architecture, variant)


def parse(text: str) -> Platform:
    """``os[/arch[/variant]]`` or an architecture alone (``arm64``). Raises ``UsageError``."""
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(part and part[0] != "." and _WORD.issuperset(part) for part in parts):
        raise UsageError(
            "Invalid platform %r: write it as os/architecture or os/architecture/variant, e.g. linux/arm64" % text,
            step="parse_platform",
            path="platform",
        )
    if len(parts) == 1:
        host = host_platform()
        if parts[0] in ("linux", "windows", "darwin", "freebsd"):
            return Platform(parts[0], host.architecture, host.variant)
        return normalise("linux", parts[0])
    return normalise(*parts)


def host_platform() -> Platform:
    """This host's, as Docker detects it: amd64 without a micro-architecture level, arm with its variant."""
    machine = os.uname().machine
    return normalise("linux", machine)


def preferences(wanted: Platform) -> list[Platform]:
    """``wanted`` and what else runs on it, best first."""
    system, architecture, variant = wanted
    result = [wanted]
    if architecture == "amd64":
        level = _level(variant, 1)
        result += [Platform(system, "amd64", "v%d" % n) for n in range(level - 1, 1, -1)]
        if variant:
            result.append(Platform(system, "amd64"))
        result.append(Platform(system, "386"))
    elif architecture == "arm":
        result += [Platform(system, "arm", "v%d" % n) for n in range(_level(variant, 7) - 1, 4, -1)]
    elif architecture == "arm64":
        if variant:
            minor = variant.partition(".")[2]
            lower = range(int(minor) - 1, 0, -1) if minor.isdigit() and len(minor) < 3 else ()
            result += [Platform(system, "arm64", "v8.%d" % n) for n in lower]
            result.append(Platform(system, "arm64"))
        result += [Platform(system, "arm", "v%d" % n) for n in (8, 7, 6, 5)]
    return result


def _level(variant: str, default: int) -> int:
    number = variant[1:]
    return int(number) if number.isdigit() and len(number) < 3 else default


def is_attestation(entry: Descriptor) -> bool:
    """BuildKit's provenance and SBOM manifests sit in the index beside the images; no host runs them."""
    return bool((entry.annotations or {}).get(_ATTESTATION)) or "attestation" in entry.artifact_type


def runnable(entry: Descriptor) -> bool:
    """Whether an index entry can be an image at all (or an index of images)."""
    if entry.media_type not in media.MANIFESTS + media.INDEXES or is_attestation(entry):
        return False
    platform = entry.platform or {}
    return "unknown" not in (platform.get("os"), platform.get("architecture"))


def of_entry(entry: Descriptor) -> Platform:
    platform = entry.platform or {}
    return normalise(platform.get("os") or "", platform.get("architecture") or "", platform.get("variant") or "")


def choose(index: Index, wanted: Platform, *, subject: str = "image") -> Descriptor:
    """The entry of ``index`` that suits ``wanted`` best; the first one among equals.

    An entry without a platform (an old tool's, or a nested index) is taken only if nothing else suits. Raises
    ``NotFound`` with what there is in ``details["available"]``.
    """
    entries = [entry for entry in index.manifests if runnable(entry)]
    for platform in preferences(wanted):
        for entry in entries:
            if entry.platform and of_entry(entry) == platform:
                return entry
    unnamed = [entry for entry in entries if not (entry.platform or {}).get("architecture")]
    if unnamed:
        return unnamed[0]
    available = sorted({str(of_entry(entry)) for entry in entries})
    raise NotFound(
        "No matching manifest for %s in the manifest list entries of %s; it has %s"
        % (wanted, subject, _listed(available)),
        step="choose_platform",
        subject=subject,
        path="platform",
        hint="Set platform to one the image has, or use another tag.",
        details={"available": available},
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "no images at all"
