# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``verify``: nothing of an image is downloaded or stored unless its signature says what it should."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from helpers import fake_registry as fake
from helpers.fake_registry import FakeRegistry
from helpers.images import OCI, build_image, build_index, descriptor, digest_of, host_architecture, layer
from helpers.signing import (
    attach,
    attach_bundle,
    bundle,
    cosign_manifest,
    make_key,
    payload,
    public_pem,
    sign,
    signature_manifest,
    statement,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from module_utils._engine.errors import RegistryError, UntrustedError, UsageError
from module_utils._engine.images import pull as pulling
from module_utils._engine.images.reference import parse
from module_utils._engine.images.trust import policy as policies
from module_utils._engine.images.trust import signatures
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.paths import Paths
from module_utils._engine.registry.transport import Transport
from module_utils._engine.store.state import Store

KEY, OTHER_KEY = make_key(), make_key()
IMAGE = build_image([layer({"bin/sh": b"#!", "etc/name": b"ours"})])
OTHER = build_image([layer({"bin/sh": b"#!", "etc/name": b"another"})])


@pytest.fixture(autouse=True)
def form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHARF_LAYER_FORM", "erofs")
    monkeypatch.setenv("HOME", "/nonexistent")


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.add("team/app", "1", IMAGE)
        yield registry


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(Paths(str(tmp_path / "state"), str(tmp_path / "run"))) as store:
        yield store


def transport(**options: Any) -> Transport:
    return Transport(timeout=10, sleep=lambda _s: None, **options)


def policy(store: Store, key: Any = KEY, identity: str = "") -> policies.Policy:
    found = policies.of({"key": public_pem(key), "identity": identity}, store.paths)
    assert found is not None
    return found


def pull(store: Store, registry: FakeRegistry, name: str = "team/app:1", **more: Any) -> policies.Policy:
    """Pull under a policy (``key``, ``identity``), which is returned."""
    wanted = policy(store, **more)
    reference = parse("%s/%s" % (registry.host, name))
    assert pulling.check(store, transport(), reference, policy=wanted).changed
    wanted = policy(store, **more)
    pulling.pull_report(store, Kernel(), reference, transport=transport(), policy=wanted)
    return wanted


def refused(store: Store, registry: FakeRegistry, reason: str, words: str, **more: Any) -> UntrustedError:
    """Both the check and the pull are refused, and nothing of the image was asked for."""
    name = more.pop("name", "team/app:1")
    reference = parse("%s/%s" % (registry.host, name))
    error: Optional[UntrustedError] = None
    known = set(registry.blobs)
    for act in (
        lambda: pulling.check(store, transport(), reference, policy=policy(store, **more)),
        lambda: pulling.pull_report(store, Kernel(), reference, transport=transport(), policy=policy(store, **more)),
    ):
        with pytest.raises(UntrustedError, match=words) as caught:
            act()
        error = caught.value
        assert error.details["reason"] == reason and error.hint and "nothing was unpacked" in error.msg
    for digest in IMAGE.blobs:
        assert digest in known and not registry.seen("/blobs/" + digest)
    assert not store.images.list() and not store.layers.list()
    assert error is not None
    return error


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "ed25519", "rsa 2048"])
@pytest.mark.parametrize("how", ["tag", "referrers", "fallback tag"])
def test_a_signed_image_comes_in_whatever_the_key_and_wherever_the_signature(
    store: Store, registry: FakeRegistry, kind: str, how: str
) -> None:
    key = make_key(kind)
    if how == "tag":
        sign(registry, "team/app", IMAGE.top, key)
    else:
        attach_bundle(registry, "team/app", IMAGE.top, key, api=how == "referrers")
    found = pull(store, registry, key=key).verified
    assert store.images.get(IMAGE.id) is not None
    assert found is None  # remembered from the check, which found out
    again = policy(store, key)
    assert again.known(parse(registry.host + "/team/app:1"), IMAGE.top)


def test_the_check_tells_what_satisfied_it(store: Store, registry: FakeRegistry) -> None:
    sign(registry, "team/app", IMAGE.top, KEY)
    one = policy(store)
    pulling.check(store, transport(), parse(registry.host + "/team/app:1"), policy=one)
    assert one.verified == {
        "digest": IMAGE.top, "key": one.keys[0].fingerprint, "kind": "ecdsa P-256",
        "identity": registry.host + "/team/app", "signature": IMAGE.top.replace(":", "-") + ".sig",
    }  # fmt: skip


def test_an_unsigned_image_is_refused(store: Store, registry: FakeRegistry) -> None:
    refused(store, registry, "unsigned", "is not signed: 127.0.0.1:[0-9]+ has no signature of sha256:")


def test_an_image_signed_by_somebody_else_is_refused(store: Store, registry: FakeRegistry) -> None:
    sign(registry, "team/app", IMAGE.top, OTHER_KEY)
    attach_bundle(registry, "team/app", IMAGE.top, OTHER_KEY)
    error = refused(
        store, registry, "key", "is signed, but not by the key given: none of 2 signatures is by ecdsa P-256"
    )
    assert error.details["signatures"] == 2


def test_one_good_signature_among_others_is_enough(store: Store, registry: FakeRegistry) -> None:
    sign(registry, "team/app", IMAGE.top, OTHER_KEY)
    attach_bundle(registry, "team/app", IMAGE.top, KEY)
    pull(store, registry)
    assert store.images.get(IMAGE.id) is not None


def test_any_of_several_keys_is_enough(store: Store, registry: FakeRegistry) -> None:
    sign(registry, "team/app", IMAGE.top, KEY)
    both = policies.of({"key": public_pem(OTHER_KEY) + public_pem(KEY)}, store.paths)
    reference = parse(registry.host + "/team/app:1")
    assert pulling.pull_report(store, Kernel(), reference, transport=transport(), policy=both).image.id == IMAGE.id


def test_an_altered_text_is_refused(store: Store, registry: FakeRegistry) -> None:
    text = sign(registry, "team/app", OTHER.top, KEY)
    registry.manifests[("team/app", IMAGE.top.replace(":", "-") + ".sig")] = registry.manifests.pop(
        ("team/app", OTHER.top.replace(":", "-") + ".sig")
    )
    registry.blobs[text] = registry.blobs[text].replace(OTHER.top.encode(), IMAGE.top.encode())
    refused(store, registry, "altered", "signature of .* was altered")
    # With a digest to match, it is simply signed by nobody.
    forged = payload(IMAGE.top, registry.host + "/team/app")
    manifest, blobs = cosign_manifest(OTHER.top, registry.host + "/team/app", KEY)
    notes = json.loads(manifest)["layers"][0]["annotations"]
    manifest, blobs = signature_manifest([(forged, notes)])
    registry.blobs.update(blobs)
    registry.manifests[("team/app", IMAGE.top.replace(":", "-") + ".sig")] = (manifest, OCI["manifest"])
    refused(store, registry, "key", "not by the key given")


def test_an_image_that_was_exchanged_under_its_signature_is_refused(store: Store, registry: FakeRegistry) -> None:
    """The tag leads to something else now, and the attacker brings along the signature of what it was."""
    registry.add("team/app", "1", OTHER)
    manifest, blobs = cosign_manifest(IMAGE.top, registry.host + "/team/app", KEY)
    registry.blobs.update(blobs)
    registry.manifests[("team/app", OTHER.top.replace(":", "-") + ".sig")] = (manifest, OCI["manifest"])
    refused(store, registry, "other_image", "signature of another image .%s., not of %s" % (IMAGE.top, OTHER.top))
    attach(registry, "team/app", OTHER.top, bundle(statement(IMAGE.top), KEY))
    refused(store, registry, "other_image", "signature of another image")


def test_a_signed_image_under_another_name_is_refused(store: Store, registry: FakeRegistry) -> None:
    """An attacker who may write to a repository copies a signed image of another one there: older, or meant for
    something else."""
    sign(registry, "team/app", IMAGE.top, KEY, identity=registry.host + "/team/legacy")
    refused(store, registry, "identity", "is signed as .*/team/legacy, and not as .*/team/app:1")
    registry.manifests.pop(("team/app", IMAGE.top.replace(":", "-") + ".sig"))
    named = statement(IMAGE.top, name="registry.example.com/team/app")
    attach(registry, "team/app", IMAGE.top, bundle(named, KEY))
    refused(store, registry, "identity", "is signed as registry.example.com/team/app")


def test_a_tag_in_the_signature_holds_for_that_tag(store: Store, registry: FakeRegistry) -> None:
    sign(registry, "team/app", IMAGE.top, KEY, identity=registry.host + "/team/app:2")
    refused(store, registry, "identity", "is signed as .*/team/app:2, and not as")
    registry.add("team/app", "2", IMAGE)
    pull(store, registry, "team/app:2")


def test_identity_says_what_the_signature_must_name(store: Store, registry: FakeRegistry) -> None:
    sign(registry, "team/app", IMAGE.top, KEY, identity="index.docker.io/library/upstream")
    refused(store, registry, "identity", "is signed as")
    refused(store, registry, "identity", "is signed as", identity="other/upstream")
    refused(store, registry, "identity", "and not as upstream:3", identity="upstream:3")  # it names no tag
    pull(store, registry, identity="upstream")


def test_an_identity_asked_for_is_not_satisfied_by_a_signature_that_names_none(
    store: Store, registry: FakeRegistry
) -> None:
    attach_bundle(registry, "team/app", IMAGE.top, KEY)
    refused(store, registry, "identity", "names no repository", identity="upstream")
    pull(store, registry)


def test_by_digest_the_tag_of_the_signature_does_not_matter(store: Store, registry: FakeRegistry) -> None:
    sign(registry, "team/app", IMAGE.top, KEY, identity=registry.host + "/team/app:9")
    pull(store, registry, "team/app@" + IMAGE.top)


def test_keyless_signatures_are_refused_by_name(store: Store, registry: FakeRegistry) -> None:
    sign(registry, "team/app", IMAGE.top, OTHER_KEY, certificate="-----BEGIN CERTIFICATE-----")
    refused(store, registry, "keyless", "signed keyless, by a certificate")
    registry.manifests.pop(("team/app", IMAGE.top.replace(":", "-") + ".sig"))

    def keyless(document: dict[str, Any]) -> None:
        document["verificationMaterial"] = {"certificate": {"rawBytes": "MAA="}}

    attach(registry, "team/app", IMAGE.top, bundle(statement(IMAGE.top), OTHER_KEY, change=keyless))
    refused(store, registry, "keyless", "signed keyless, by a certificate")


def test_an_attestation_by_the_same_key_is_no_signature(store: Store, registry: FakeRegistry) -> None:
    """A signed statement that an image failed its scan must not let it in."""
    slsa = "https://slsa.dev/provenance/v1"
    attach(registry, "team/app", IMAGE.top, bundle(statement(IMAGE.top, predicate=slsa), KEY), predicate=slsa)
    refused(store, registry, "unsigned", "is not signed")
    attach(registry, "team/app", IMAGE.top, bundle(statement(IMAGE.top, predicate=slsa), KEY))  # under a false label
    refused(store, registry, "malformed", "attests something else than a signature .https://slsa.dev")


def test_of_an_index_the_index_is_what_must_be_signed(store: Store, registry: FakeRegistry) -> None:
    index = build_index({"linux/" + host_architecture(): IMAGE, "linux/s390x": OTHER})
    registry.add("team/app", "1", index)
    sign(registry, "team/app", IMAGE.top, KEY)  # of one platform only: the index may lead to anything
    refused(store, registry, "unsigned", "no signature of " + index.top)
    sign(registry, "team/app", index.top, KEY)
    pull(store, registry)
    assert store.images.get(IMAGE.id) is not None


MALFORMED: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("version", lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle.v0.9+json"), "unknown version"),
    ("no envelope", lambda d: d.pop("dsseEnvelope"), "without a statement"),
    ("type", lambda d: d["dsseEnvelope"].update(payloadType="text/plain"), "unknown form"),
    ("payload", lambda d: d["dsseEnvelope"].update(payload="!"), "not base64"),
    ("none", lambda d: d["dsseEnvelope"].update(signatures=[]), "exactly one signature"),
    ("two", lambda d: d["dsseEnvelope"]["signatures"].append({"sig": "AA=="}), "exactly one signature"),
    ("sig", lambda d: d["dsseEnvelope"].update(signatures=[{"sig": 5}]), "not base64"),
    ("list", lambda d: d["dsseEnvelope"].update(payload=base64.b64encode(b"[]").decode()), "not a JSON object"),
    (
        "twice",
        lambda d: d["dsseEnvelope"].update(payload=base64.b64encode(b'{"a":1,"a":2}').decode()),
        "same key twice",
    ),
    ("no type", lambda d: d["dsseEnvelope"].update(payload=base64.b64encode(b"{}").decode()), "no in-toto statement"),
]


@pytest.mark.parametrize(("change", "words"), [one[1:] for one in MALFORMED], ids=[one[0] for one in MALFORMED])
def test_a_bundle_that_cannot_be_read_is_refused_with_its_fault(
    store: Store, registry: FakeRegistry, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    attach(registry, "team/app", IMAGE.top, bundle(statement(IMAGE.top), KEY, change=change))
    refused(store, registry, "malformed", words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (payload(IMAGE.top, "x", kind="atomic container signature"), "not that of an image signature"),
        (payload("sha256:short", "x"), "names no image"),
        (b'{"critical": {"type": "cosign container image signature"}}', "names no image"),
        (b"[]", "not a JSON object"),
        (b"\xff", "not valid JSON"),
    ],
)
def test_a_signed_text_that_cannot_be_read_is_refused_with_its_fault(
    store: Store, registry: FakeRegistry, text: bytes, words: str
) -> None:
    sign(registry, "team/app", IMAGE.top, KEY, text=text)
    refused(store, registry, "malformed", words)


WORDS = [
    "mediaType",
    "dsseEnvelope",
    "payload",
    "payloadType",
    "signatures",
    "sig",
    "verificationMaterial",
    "certificate",
]
WORDS += ["critical", "type", "identity", "docker-reference", "image", "docker-manifest-digest", "subject", "digest"]
WORDS += ["sha256", "name", "predicateType", "_type"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just("application/vnd.in-toto+json"),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(WORDS),
            below,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@settings(max_examples=300, deadline=None)
@given(JSON, st.booleans())
def test_no_document_breaks_a_reader(document: Any, known: bool) -> None:
    """Whatever a registry serves as a signature, it is one that can be judged, or is refused with its fault."""
    if known and isinstance(document, dict):
        document["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.3+json"
        document["dsseEnvelope"] = {
            "payloadType": "application/vnd.in-toto+json",
            "payload": base64.b64encode(json.dumps(document).encode()).decode(),
            "signatures": [{"sig": "AAAA"}],
        }
    text = json.dumps(document).encode()
    for reader in (signatures._bundle, signatures._simple):
        try:
            found = reader("here", text, {"dev.cosignproject.cosign/signature": "AAAA"})
        except (RegistryError, signatures._Unreadable):
            continue
        assert found.digests and not found.fault


def test_strange_things_under_the_signatures_tag_are_refused(store: Store, registry: FakeRegistry) -> None:
    tag = ("team/app", IMAGE.top.replace(":", "-") + ".sig")
    registry.manifests[tag] = (b'{"schemaVersion": 2, "manifests": []}', OCI["index"])
    refused(store, registry, "malformed", "it is an index")
    registry.manifests[tag] = (b'{"schemaVersion": 7}', OCI["manifest"])
    refused(store, registry, "malformed", "schemaVersion")
    manifest, _blobs = cosign_manifest(IMAGE.top, registry.host + "/team/app", KEY)
    registry.manifests[tag] = (manifest, OCI["manifest"])
    refused(store, registry, "malformed", "blob")
    document = json.loads(manifest)
    document["layers"][0]["size"] = 1 << 40
    registry.manifests[tag] = (json.dumps(document).encode(), OCI["manifest"])
    refused(store, registry, "malformed", "are not read")
    document["layers"] = [descriptor(b"x", OCI["layer"])]
    registry.manifests[tag] = (json.dumps(document).encode(), OCI["manifest"])
    refused(store, registry, "unsigned", "is not signed")


def test_a_registry_that_does_not_answer_about_signatures_is_no_consent(store: Store, registry: FakeRegistry) -> None:
    registry.script(".sig", fake.status(403, b"{}"), times=100)
    with pytest.raises(RegistryError):
        pulling.check(store, transport(), parse(registry.host + "/team/app:1"), policy=policy(store))
    assert not store.images.list()


def test_what_was_verified_is_not_asked_for_again_and_another_key_or_identity_is(
    store: Store, registry: FakeRegistry
) -> None:
    sign(registry, "team/app", IMAGE.top, KEY)
    pull(store, registry)
    reference = parse(registry.host + "/team/app:1")
    record = store.images.by_reference(reference.canonical())
    assert record is not None
    before = len(registry.requests)
    pulling.require_present(store, transport(), reference, record, policy(store))
    assert len(registry.requests) == before
    assert not pulling.check(store, transport(), reference, policy=policy(store)).changed
    assert len(registry.requests) == before + 1  # the tag, as ever
    with pytest.raises(UntrustedError, match="not by the key given"):
        pulling.require_present(store, transport(), reference, record, policy(store, OTHER_KEY))
    with pytest.raises(UntrustedError, match="is signed as"):
        pulling.require_present(store, transport(), reference, record, policy(store, identity="elsewhere"))


def test_an_image_pulled_without_verify_is_verified_by_the_digest_it_came_under(
    store: Store, registry: FakeRegistry
) -> None:
    reference = parse(registry.host + "/team/app:1")
    record = pulling.pull(store, Kernel(), reference, transport=transport())
    with pytest.raises(UntrustedError, match="is not signed"):
        pulling.require_present(store, transport(), reference, record, policy(store))
    sign(registry, "team/app", IMAGE.top, KEY)
    registry.add("team/app", "1", OTHER)  # where the tag leads now does not matter
    pulling.require_present(store, transport(), reference, record, policy(store))


def test_an_image_that_came_from_no_registry_cannot_be_verified(store: Store, registry: FakeRegistry) -> None:
    record = pulling.pull(store, Kernel(), parse(registry.host + "/team/app:1"), transport=transport())
    store.images.tag(registry.host + "/team/copy:1", record.id)
    before = len(registry.requests)
    with pytest.raises(UntrustedError, match="did not come from its registry") as caught:
        pulling.require_present(store, transport(), parse(registry.host + "/team/copy:1"), record, policy(store))
    assert caught.value.details["reason"] == "local" and len(registry.requests) == before


def test_a_mirror_without_the_signature_is_passed_over_and_one_with_it_serves(
    store: Store, registry: FakeRegistry
) -> None:
    from module_utils._engine.registry.mirrors import locations

    sign(registry, "team/app", IMAGE.top, KEY)
    with FakeRegistry() as mirror:
        mirror.add("team/app", "1", IMAGE)
        paths = store.paths
        with open(paths.mirrors, "w") as stream:
            json.dump({registry.host: [mirror.url]}, stream)
        reference = parse(registry.host + "/team/app:1")

        def through() -> Any:
            return transport(mirrors=lambda host, path, pinned: locations(paths.mirrors, host, path, pinned))

        report = pulling.pull_report(store, Kernel(), reference, transport=through(), policy=policy(store))
        assert "was passed over: %s is not signed" % reference.familiar() in report.warnings[0]
        assert mirror.seen(".sig") and not mirror.seen("/blobs/")
        sign(mirror, "team/app", IMAGE.top, KEY, identity=registry.host + "/team/app")
        asked = len(registry.requests)
        pulling.check(store, through(), reference, policy=policy(store, identity=registry.host + "/team/app"))
        assert len(registry.requests) == asked


def test_a_bad_option_is_told_before_anything_is_asked(store: Store) -> None:
    with pytest.raises(UsageError, match=r"verify\.identity: Invalid image reference"):
        policies.of({"key": public_pem(KEY), "identity": "team/Case"}, store.paths)
    with pytest.raises(UsageError, match=r"verify\.key is required"):
        policies.of({"identity": "x"}, store.paths)
    assert policies.of(None, store.paths) is None


def test_digests_of_the_helpers_are_true() -> None:
    text = payload(IMAGE.top, "x")
    manifest, blobs = signature_manifest([(text, {})])
    assert json.loads(manifest)["layers"][0]["digest"] == digest_of(text) and digest_of(text) in blobs
