# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Search and referrers, of registries that have them, that do not, and that answer nonsense."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Optional
from urllib.parse import parse_qs, urlsplit

import pytest
from helpers import fake_registry as fake
from helpers.fake_registry import FakeRegistry, Handler
from helpers.images import OCI, build_image, descriptor, digest_of, layer
from module_utils._engine.errors import RegistryError, UsageError
from module_utils._engine.registry import discovery
from module_utils._engine.registry.client import RegistryClient
from module_utils._engine.registry.transport import Transport

IMAGE = build_image([layer({"a": b"x"})])
ALWAYS = 10**9


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.add("team/app", "1", IMAGE)
        yield registry


def transport() -> Transport:
    return Transport(timeout=5, sleep=lambda _s: None)


HUB = {
    "num_pages": 1, "num_results": 2, "page_size": 25, "query": "nginx",
    "results": [
        {"name": "library/nginx", "description": "Official", "star_count": 20000, "is_official": True},
        {"name": "bitnami/nginx", "description": None, "star_count": "many", "is_automated": True},
        {"description": "without a name"},
    ],
}  # fmt: skip


def test_the_hubs_search(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "HUB_SEARCH", registry.host)
    registry.script("/v1/search", fake.status(200, json.dumps(HUB).encode()))
    assert discovery.search("docker.io", transport(), "nginx & co", 7) == [
        {"name": "nginx", "description": "Official", "star_count": 20000, "is_official": True},
        {"name": "bitnami/nginx", "description": "", "star_count": 0, "is_official": False},
    ]
    asked = registry.seen("/v1/search")[0].path
    assert parse_qs(urlsplit(asked).query) == {"q": ["nginx & co"], "n": ["7"]}


def test_registries_without_a_search_are_looked_through(registry: FakeRegistry) -> None:
    registry.add("other/thing", "1", IMAGE)
    found = discovery.search(registry.host, transport(), "APP")
    assert [entry["name"] for entry in found] == ["team/app"]
    registry.script("/v1/search", fake.web_page())
    assert discovery.search(registry.host, transport(), "nothing") == []
    registry.script("/_catalog", fake.status(404))
    with pytest.raises(RegistryError, match="does not list"):
        discovery.search(registry.host, transport(), "x")


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"results": 5}', b'{"results": [5]}', b"{}"])
def test_nonsense_is_no_result(registry: FakeRegistry, body: bytes) -> None:
    registry.script("/v1/search", fake.status(200, body))
    with pytest.raises(RegistryError, match="did not answer with results"):
        discovery.search(registry.host, transport(), "x")


@pytest.mark.parametrize(("term", "limit"), [("", 1), ("https://x", 1), ("a\nb", 1), ("x", 0), ("x", 101)])
def test_bad_questions_are_not_asked(registry: FakeRegistry, term: str, limit: int) -> None:
    with pytest.raises(UsageError):
        discovery.search(registry.host, transport(), term, limit)
    assert not registry.requests


def entry(data: bytes, artifact: str, **notes: str) -> dict[str, Any]:
    return descriptor(data, OCI["manifest"], artifactType=artifact, annotations=notes)


def index(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI["index"], "manifests": entries}).encode()


def referrers(registry: FakeRegistry) -> list[dict[str, Any]]:
    return discovery.referrers(RegistryClient(registry.host, transport()), "team/app", IMAGE.top)


SBOM = entry(b"1", "application/spdx+json", created="2026")
SIGNATURE = entry(b"2", "application/vnd.dev.cosign.artifact.sig.v1+json")
OTHER = entry(b"3", "application/x")


def test_the_api_in_pages(registry: FakeRegistry) -> None:
    def page(handler: Handler, path: str) -> bool:
        last = "page=2" in path
        headers = {} if last else {"Link": '<%s?page=2>; rel="next"' % path}
        handler.answer(200, index(OTHER) if last else index(SBOM, SIGNATURE), headers)
        return True

    registry.script("/referrers/", page, times=ALWAYS)
    found = referrers(registry)
    assert [(one["kind"], one["source"]) for one in found] == [
        ("sbom", "referrers"), ("signature", "referrers"), ("artifact", "referrers"),
    ]  # fmt: skip
    assert found[0]["digest"] == digest_of(b"1") and found[0]["annotations"] == {"created": "2026"}


def test_the_fallback_tag_and_cosigns_tags(registry: FakeRegistry) -> None:
    assert referrers(registry) == []
    tag = IMAGE.top.replace(":", "-")
    registry.manifests[("team/app", tag)] = (index(SBOM), OCI["index"])
    registry.manifests[("team/app", tag + ".sig")] = (b"{}", OCI["manifest"])
    registry.manifests[("team/app", tag + ".sbom")] = (b"{ }", OCI["manifest"])
    found = referrers(registry)
    assert [(one["kind"], one["source"]) for one in found] == [
        ("sbom", "tag"), ("signature", tag + ".sig"), ("sbom", tag + ".sbom"),
    ]  # fmt: skip
    assert found[1]["digest"] == digest_of(b"{}")


@pytest.mark.parametrize(
    ("predicate", "kind"),
    [
        ("https://sigstore.dev/cosign/sign/v1", "signature"),
        ("https://spdx.dev/Document", "sbom"),
        ("https://cyclonedx.org/bom", "sbom"),
        ("https://slsa.dev/provenance/v1", "attestation"),
        (None, "attestation"),
    ],
)
def test_a_sigstore_bundle_is_listed_as_what_it_holds(
    registry: FakeRegistry, predicate: Optional[str], kind: str
) -> None:
    notes = {"dev.sigstore.bundle.predicateType": predicate} if predicate else {}
    one = entry(b"5", "application/vnd.dev.sigstore.bundle.v0.3+json", **notes)
    registry.manifests[("team/app", IMAGE.top.replace(":", "-"))] = (index(one), OCI["index"])
    assert [found["kind"] for found in referrers(registry)] == [kind]


def test_a_list_that_never_ends_or_goes_elsewhere_is_refused(registry: FakeRegistry) -> None:
    def endless(handler: Handler, path: str) -> bool:
        handler.answer(200, index(SBOM), {"Link": '</v2/team/app/referrers/x>; rel="next"'})
        return True

    registry.script("/referrers/", endless, times=ALWAYS)
    with pytest.raises(RegistryError, match="never ends"):
        referrers(registry)
    with FakeRegistry() as other, FakeRegistry() as liar:

        def elsewhere(handler: Handler, path: str) -> bool:
            handler.answer(200, index(SBOM), {"Link": '<%s/x>; rel="next"' % other.url})
            return True

        liar.script("/referrers/", elsewhere, times=ALWAYS)
        with pytest.raises(RegistryError, match="on another host"):
            referrers(liar)
        assert not other.requests


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"manifests": 5}', fake.HTML])
def test_an_api_that_answers_nonsense_counts_as_none(registry: FakeRegistry, body: bytes) -> None:
    registry.script("/referrers/", fake.status(200, body))
    assert referrers(registry) == []


def test_buildkits_attestations_lie_beside_the_image() -> None:
    notes = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": IMAGE.top}
    document = {"manifests": [SBOM, descriptor(b"4", OCI["manifest"], annotations=notes), {"digest": "x"}]}
    found = discovery.attestations(document)
    assert [(one["kind"], one["digest"]) for one in found] == [("attestation", digest_of(b"4"))]
    assert discovery.attestations(document, IMAGE.top) == found and not discovery.attestations(document, "sha256:x")
