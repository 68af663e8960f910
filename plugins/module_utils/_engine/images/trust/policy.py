# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an image may come in: ``verify`` of the modules.

What must be signed is the manifest or index that the reference leads to, by its digest; everything below follows from
that by digests. A signature counts when one of the keys made it, when it speaks of this digest, and when it calls the
image what it is called here (or what ``identity`` says): a registry that serves the signed image of another repository
under this name is refused. Sigstore bundles of ``cosign sign`` name no repository; those bind the content alone, and do
not satisfy an ``identity`` that was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from ...errors import UntrustedError, UsageError
from ...tuples import NamedTuple
from .. import reference as references
from . import memory, signatures
from .signatures import Signature, explicit_tag

if TYPE_CHECKING:
    from ...paths import Paths
    from ...registry.client import RegistryClient
    from ..reference import Reference
    from .keys import Key

_SHOWN = 200


class _Refusal(NamedTuple):
    """``rank``: of several refusals the one with the highest is told, being the most to the point."""

    rank: int
    reason: str
    sentence: str
    hint: str = ""


class Policy:
    """``verified`` tells after a check what satisfied it: ``{digest, key, kind, identity, signature}``, or is None when
    it was remembered from an earlier one."""

    def __init__(self, keys: list[Key], identity: str, paths: Optional[Paths], remember: bool = True) -> None:
        self.keys = keys
        self.identity = identity
        self.verified: Optional[dict[str, Any]] = None
        self._paths = paths
        self._remember = remember
        self._identity = references.parse(identity) if identity else None

    def known(self, reference: Reference, digest: str) -> bool:
        """Whether ``digest`` under this reference was verified earlier, with these keys and this identity. It needs no
        registry: what a digest says does not change."""
        return self._paths is not None and memory.known(self._paths, self._note(reference, digest))

    def require(self, client: RegistryClient, source: Reference, reference: Reference, digest: str) -> None:
        """Hold the manifest ``digest`` of ``reference`` against its signatures. ``source`` is the reference as the
        registry of ``client`` (a mirror, perhaps) calls it. Raises ``UntrustedError``; nothing is stored."""
        if self.known(reference, digest):
            return
        refusals: list[_Refusal] = []
        seen = 0
        for one in signatures.find(client, source.path, digest):
            seen += 1
            found = self._judge(one, reference, digest)
            if found is None:
                if self._paths is not None and self._remember:
                    memory.remember(self._paths, self._note(reference, digest))
                return
            refusals.append(found)
        raise self._refused(client, reference, digest, refusals, seen)

    def _judge(self, one: Signature, reference: Reference, digest: str) -> Optional[_Refusal]:
        """None when it counts."""
        name = reference.familiar()
        if one.fault:
            if one.altered:
                return _Refusal(4, "altered", "The signature of %s was altered: %s" % (name, one.fault))
            return _Refusal(1, "malformed", "The signature of %s cannot be used: %s" % (name, one.fault))
        key = next((key for key in self.keys if key.verify(one.signature, one.message)), None)
        if key is None:
            if one.keyless:
                return _Refusal(
                    3,
                    "keyless",
                    "%s is signed keyless, by a certificate, and only signatures by a public key can be verified"
                    % name,
                    "Sign it with a key (cosign sign --key).",
                )
            return _Refusal(2, "key", "")
        if digest not in one.digests:
            return _Refusal(
                5,
                "other_image",
                "What was found for %s is a signature of another image (%s), not of %s"
                % (name, one.digests[0], digest),
            )
        wrong = self._misnamed(one, reference, digest)
        if wrong is None:
            self.verified = {
                "digest": digest,
                "key": key.fingerprint,
                "kind": key.kind,
                "identity": one.identity or None,
                "signature": one.where,
            }
        return wrong

    def _misnamed(self, one: Signature, reference: Reference, digest: str) -> Optional[_Refusal]:
        name = reference.familiar()
        wanted = self.identity or name
        if not one.identity:
            if not self.identity:
                return None
            return _Refusal(
                6,
                "identity",
                "%s is signed by the key, but its signature names no repository, so it does not say that this is %s"
                % (name, self.identity),
                "Leave verify.identity out, or sign with cosign's own format (cosign sign --new-bundle-format=false).",
            )
        try:
            claimed = references.parse(one.identity)
        except UsageError:
            claimed = None
        if claimed is not None and self._is_meant(claimed, explicit_tag(one.identity), reference, digest):
            return None
        return _Refusal(
            7,
            "identity",
            "%s is signed as %s, and not as %s" % (name, _printable(one.identity), wanted),
            "If that is the image you mean, set verify.identity to it.",
        )

    def _is_meant(self, claimed: Reference, tag: Optional[str], reference: Reference, digest: str) -> bool:
        expected = self._identity or reference
        if claimed.name != expected.name or claimed.digest not in (None, digest):
            return False
        if self._identity is not None:
            wanted = explicit_tag(self.identity)
            return wanted is None or tag == wanted
        # A tag in the signature holds for that tag; where a digest was asked for, the digest has been held against it.
        return tag is None or reference.digest is not None or tag == reference.tag

    def _refused(
        self, client: RegistryClient, reference: Reference, digest: str, refusals: list[_Refusal], seen: int
    ) -> UntrustedError:
        name = reference.familiar()
        if not refusals:
            worst = _Refusal(
                0,
                "unsigned",
                "%s is not signed: %s has no signature of %s, neither under the tag %s nor as a referrer"
                % (name, client.host, digest, signatures.tag_of(digest)),
                "Sign it (cosign sign --key), or take verify out of the task.",
            )
        else:
            worst = max(refusals, key=lambda one: one.rank)
        sentence = worst.sentence
        if worst.reason == "key":
            sentence = "%s is signed, but not by the key given: none of %d signatures is by %s" % (
                name,
                seen,
                ", ".join("%s %s" % (key.kind, key.fingerprint[:16]) for key in self.keys),
            )
        return UntrustedError(
            sentence + "; nothing was unpacked",
            step="verify_image",
            subject="image %s" % name,
            path="verify",
            hint=worst.hint or "Do not use the image before you know where it comes from.",
            details={"reason": worst.reason, "digest": digest, "signatures": seen},
        )

    def _note(self, reference: Reference, digest: str) -> list[str]:
        keys = sorted(key.fingerprint for key in self.keys)
        return [digest, reference.canonical(), self.identity, *keys]


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_SHOWN])


def of(option: Optional[dict[str, Any]], paths: Optional[Paths], *, remember: bool = True) -> Optional[Policy]:
    """The policy that the option ``verify`` asks for; None without one. Raises ``UsageError``, ``NotFound``."""
    if not option:
        return None
    from . import keys

    identity = option.get("identity") or ""
    if identity:
        try:
            references.parse(identity)
        except UsageError as error:
            raise UsageError(
                "verify.identity: %s" % error.msg, step="validate", path="verify.identity", hint=error.hint
            ) from None
    if not option.get("key"):
        raise UsageError("verify.key is required", step="validate", path="verify.key")
    return Policy(keys.read(option["key"]), identity, paths, remember)
