# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests, indexes and platform choice: one document is one thing, or it is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from module_utils._engine.errors import NotFound, RegistryError, Unsupported, UsageError, WharfError
from module_utils._engine.images import platform as platforms
from module_utils._engine.images.manifest import Index, Manifest, parse_manifest, require_image
from module_utils._engine.images.platform import Platform, choose
from module_utils._engine.registry import mediatypes as media


def digest(n: int) -> str:
    return "sha256:%064x" % n


def descriptor(n: int = 1, kind: str = media.OCI_LAYER_GZIP, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(n), "size": 10, **more}


def manifest(**more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": descriptor(1, media.OCI_CONFIG),
        "layers": [descriptor(2)],
        **more,
    }


def index(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": list(entries), **more}


def entry(n: int, os: str, architecture: str, variant: str = "", **more: Any) -> dict[str, Any]:
    platform = {"os": os, "architecture": architecture, **({"variant": variant} if variant else {})}
    return descriptor(n, media.OCI_MANIFEST, platform=platform, **more)


def parse(document: Any, content_type: str = "") -> Any:
    return parse_manifest(json.dumps(document).encode(), content_type)


def test_both_families_are_read() -> None:
    assert isinstance(parse(manifest(), media.OCI_MANIFEST), Manifest)
    docker = parse(manifest(mediaType=media.DOCKER_MANIFEST), media.DOCKER_MANIFEST + "; charset=utf-8")
    assert docker.media_type == media.DOCKER_MANIFEST
    assert isinstance(parse(index(entry(1, "linux", "amd64"))), Index)


def test_a_missing_media_type_is_inferred_from_header_or_fields() -> None:
    bare = manifest()
    del bare["mediaType"]
    assert parse(bare).media_type == media.OCI_MANIFEST
    assert parse(bare, "application/json").media_type == media.OCI_MANIFEST
    assert parse(bare, media.DOCKER_MANIFEST).media_type == media.DOCKER_MANIFEST
    with pytest.raises(RegistryError, match="list of manifests"):
        parse({"schemaVersion": 2, "manifests": []}, media.OCI_MANIFEST)


@pytest.mark.parametrize(
    ("document", "content_type", "words"),
    [
        (manifest(manifests=[]), media.OCI_MANIFEST, "two different images"),
        (index(config=descriptor()), "", "two different images"),
        (manifest(), media.OCI_INDEX, "was sent as"),
        (manifest(mediaType=media.OCI_INDEX), "", "holds layers"),
        (index(mediaType=media.OCI_MANIFEST), "", "list of manifests"),
        (manifest(mediaType="text/plain"), "", "not that of an image manifest"),
        ({"schemaVersion": 2}, "", "neither"),
        (manifest(schemaVersion=3), "", "schemaVersion is 3"),
        (manifest(schemaVersion=True), "", "schemaVersion is true"),
        (manifest(config=None), "", "config field"),
        (manifest(layers={}), "", "not a list"),
        (manifest(layers=[descriptor(2, size=-1)]), "", r"layers\[0\].size"),
        (manifest(layers=[descriptor(2, size="1")]), "", r"layers\[0\].size"),
        (manifest(layers=[{**descriptor(), "digest": "sha256:../../etc"}]), "", r"layers\[0\].digest"),
        (manifest(layers=[descriptor()] * 501), "", "501 layers"),
        ([], "", "not a JSON object"),
    ],
)
def test_a_malformed_or_ambiguous_document_is_refused(document: Any, content_type: str, words: str) -> None:
    with pytest.raises(RegistryError, match=words):
        parse(document, content_type)


def test_duplicate_keys_html_and_oversize_are_refused() -> None:
    text = json.dumps(manifest())
    with pytest.raises(RegistryError, match="same key twice"):
        parse_manifest((text[:-1] + ', "layers": []}').encode())
    with pytest.raises(RegistryError, match="web page"):
        parse_manifest(b"\n <!DOCTYPE html><html>log in</html>", "text/html")
    with pytest.raises(RegistryError, match="4 MiB"):
        parse_manifest(b" " * ((4 << 20) + 1))
    with pytest.raises(RegistryError, match="not valid JSON"):
        parse_manifest(b"[" * 200_000)


def test_schema_1_is_named() -> None:
    for document, kind in (({"schemaVersion": 1, "fsLayers": []}, ""), (manifest(), media.DOCKER_SCHEMA1[0])):
        if kind:
            del document["mediaType"]
        with pytest.raises(Unsupported, match="schema 1"):
            parse(document, kind)


def test_130_and_500_layers_and_none_and_twins_are_fine() -> None:
    for count in (0, 2, 130, 500):
        assert len(parse(manifest(layers=[descriptor()] * count)).layers) == count


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": descriptor(1, "application/vnd.cncf.helm.config.v1+json")}, "helm"),
        ({"config": descriptor(1, media.OCI_EMPTY), "artifactType": "application/x.sbom"}, "application/x.sbom"),
        ({"layers": [descriptor(2, media.OCI_LAYER + "+lz4")]}, "lz4"),
        ({"layers": [descriptor(2, media.OCI_LAYER + "+gzip+encrypted")]}, "encrypted"),
        ({"layers": [descriptor(2, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")]}, "foreign"),
        ({"layers": [descriptor(2, "application/vnd.in-toto+json")]}, "in-toto"),
    ],
)
def test_what_is_no_runnable_image_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        require_image(parse(manifest(**change)), "x")


def test_images_pass() -> None:
    require_image(parse(manifest()), "x")
    require_image(
        parse(
            manifest(
                config=descriptor(1, media.DOCKER_CONFIG),
                layers=[descriptor(2, media.DOCKER_LAYER_GZIP), descriptor(3, media.OCI_LAYER)],
            )
        ),
        "x",
    )


def pick(wanted: str, *entries: dict[str, Any]) -> str:
    return choose(parse(index(*entries)), platforms.parse(wanted)).digest


def test_the_best_match_wins_and_the_first_among_equals() -> None:
    arms = [entry(n, "linux", "arm", "v%d" % n) for n in (5, 6, 7)]
    assert pick("linux/arm/v7", *arms) == digest(7)
    assert pick("linux/arm/v6", *arms) == digest(6)
    assert pick("linux/arm64", *arms) == digest(7)
    assert pick("linux/arm64", entry(1, "linux", "arm64", "v8"), *arms) == digest(1)
    assert pick("linux/amd64", entry(1, "linux", "386"), entry(2, "linux", "amd64")) == digest(2)
    assert pick("linux/amd64", entry(1, "linux", "amd64"), entry(2, "linux", "amd64")) == digest(1)
    levels = [entry(1, "linux", "amd64"), entry(2, "linux", "amd64", "v2"), entry(4, "linux", "amd64", "v4")]
    assert pick("linux/amd64/v3", *levels) == digest(2)
    assert pick("linux/amd64", *levels) == digest(1)


def test_attestations_and_unknown_platforms_are_skipped() -> None:
    attestation = entry(1, "linux", "amd64", annotations={"vnd.docker.reference.type": "attestation-manifest"})
    unknown = entry(2, "unknown", "unknown")
    assert pick("linux/amd64", attestation, unknown, entry(3, "linux", "amd64")) == digest(3)
    with pytest.raises(NotFound, match="no images at all"):
        pick("linux/amd64", attestation, unknown)


def test_no_match_lists_what_there_is() -> None:
    with pytest.raises(NotFound, match="No matching manifest for linux/s390x") as caught:
        pick("linux/s390x", entry(1, "linux", "arm", "v7"), entry(2, "windows", "amd64"))
    assert caught.value.details["available"] == ["linux/arm/v7", "windows/amd64"]


def test_platform_names_are_normalised() -> None:
    assert platforms.parse("linux/x86_64") == Platform("linux", "amd64")
    assert platforms.parse("aarch64") == Platform("linux", "arm64")
    assert platforms.parse("linux/arm64/v8") == Platform("linux", "arm64")
    assert platforms.parse("linux/armhf") == Platform("linux", "arm", "v7")
    assert platforms.parse("linux/arm/6") == Platform("linux", "arm", "v6")
    assert platforms.parse("linux/amd64/v1") == Platform("linux", "amd64")
    assert platforms.parse("linux") == platforms.host_platform()
    for bad in ("", "a/b/c/d", "linux/", "li nux/x", "../x"):
        with pytest.raises(UsageError):
            platforms.parse(bad)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from([digest(1), media.OCI_INDEX]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["mediaType", "digest", "size", "platform", "os", "urls"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["schemaVersion", "mediaType", "manifests", "layers", "config", "annotations"]), json_values
    ),
    st.sampled_from(["", media.OCI_INDEX, media.OCI_MANIFEST, "text/html"]),
)
def test_any_json_is_parsed_or_refused_and_never_crashes(document: dict[str, Any], content_type: str) -> None:
    for candidate in (document, {**manifest(), **document}, {**index(), **document}):
        try:
            result = parse(candidate, content_type)
            if isinstance(result, Manifest):
                require_image(result, "x")
            else:
                choose(result, Platform("linux", "amd64"))
        except WharfError as error:
            assert error.msg


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_and_never_crash(data: bytes) -> None:
    with pytest.raises(WharfError):
        parse_manifest(data)
