# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pull laws: what lands in the store is what was promised, or nothing does; no byte is fetched twice for nothing."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import time
from typing import Any

import pytest
from helpers import fake_registry as fake
from helpers.fake_registry import FakeRegistry
from helpers.images import DOCKER, OCI, Image, build_image, build_index, descriptor, digest_of, layer
from helpers.zstd import frame, skippable
from module_utils._engine.errors import IntegrityError, NotFound, RegistryError, Unsupported, UsageError, WharfError
from module_utils._engine.images import pull as pulling
from module_utils._engine.images import zstd
from module_utils._engine.images.inspect import inspect
from module_utils._engine.images.reference import parse
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.registry.transport import Transport
from module_utils._engine.storage.overlay import MAX_LAYERS
from module_utils._engine.store.state import Store

NOISE = random.Random(7)


def noise(size: int) -> bytes:
    return NOISE.randbytes(size)


pytestmark = pytest.mark.usefixtures("pulling_either_way")


def transport(**options: Any) -> Transport:
    options.setdefault("timeout", 10)
    options.setdefault("sleep", lambda _s: None)
    return Transport(**options)


def pull(store: Store, text: str, **options: Any) -> pulling.PullReport:
    options.setdefault("transport", transport())
    return pulling.pull_report(store, Kernel(), parse(text), **options)


def check(store: Store, text: str, **options: Any) -> pulling.PullCheck:
    return pulling.check(store, transport(), parse(text), **options)


def image(seed: str = "x", *, size: int = 20000, **options: Any) -> Image:
    return build_image(
        [layer({"bin/sh": noise(size), "etc/name": seed.encode()}), layer({"etc/second": seed.encode()})], **options
    )


def is_empty(store: Store) -> bool:
    """Nothing visible: no images, layers or blobs of layers."""
    return not store.images.list() and not store.layers.list()


def tar_of(store: Store, chain_id: str) -> str:
    with open(store.paths.layer(chain_id) + "/tar", "rb") as stream:
        return "sha256:" + hashlib.sha256(stream.read()).hexdigest()


@pytest.mark.parametrize("types", [OCI, DOCKER], ids=["oci", "docker"])
@pytest.mark.parametrize("compress", [True, False], ids=["gzip", "plain"])
def test_an_image_lands_bit_by_bit(store: Store, registry: FakeRegistry, types: dict[str, str], compress: bool) -> None:
    wanted = image(types=types, compress=compress, config={"Cmd": ["/bin/sh"], "Env": ["A=b"]})
    name = registry.add("team/app", "1", wanted)
    report = pull(store, name)
    assert report.changed and report.image.id == wanted.id and report.digest == wanted.top
    record = store.images.by_reference(name)
    assert record == store.images.find("%s/team/app@%s" % (registry.host, wanted.top))
    assert record is not None and record.config["config"]["Cmd"] == ["/bin/sh"]
    assert [one.diff_id for one in record.layers] == wanted.diff_ids
    assert [tar_of(store, one.chain_id) for one in record.layers] == wanted.diff_ids
    assert all(store.blobs.has(digest) for digest in (*wanted.blobs, *wanted.manifests))
    assert store.collect() == {"layers": [], "blobs": [], "bytes": 0}
    assert record.size == 20000 + 2
    shown = inspect(record, store.images.references(record.id), store.images.repo_digests(record.id))
    assert shown["Id"] == wanted.id and shown["RepoTags"] == [name]
    assert shown["RepoDigests"] == ["%s/team/app@%s" % (registry.host, wanted.top)]


def test_an_unchanged_tag_costs_one_request(store: Store, registry: FakeRegistry) -> None:
    name = registry.add("team/app", "1", build_index({"linux/amd64": image(), "linux/arm64": image()}))
    pull(store, name, platform="linux/amd64")
    before = len(registry.requests)
    assert not pull(store, name, platform="linux/amd64").changed
    assert [r.method for r in registry.requests[before:]] == ["HEAD"]
    answer = check(store, name, platform="linux/amd64")
    assert not answer.changed and answer.image_id == store.images.by_reference(name).id  # type: ignore[union-attr]
    assert len(registry.requests) == before + 2


def test_a_digest_that_is_here_costs_none(store: Store, registry: FakeRegistry) -> None:
    wanted = image()
    registry.add("team/app", "1", wanted)
    name = "%s/team/app:other@%s" % (registry.host, wanted.top)
    assert pull(store, name).changed
    before = len(registry.requests)
    assert not pull(store, name).changed and not check(store, name).changed
    assert len(registry.requests) == before
    record = store.images.by_reference("%s/team/app@%s" % (registry.host, wanted.top))
    assert record is not None
    shown = inspect(record, store.images.references(record.id), store.images.repo_digests(record.id))
    assert shown["RepoTags"] == [] and len(shown["RepoDigests"]) == 1


def test_check_does_not_promise_a_digest_that_is_not_there(store: Store, registry: FakeRegistry) -> None:
    wanted = image()
    registry.add("team/app", "1", wanted)
    assert check(store, "%s/team/app@%s" % (registry.host, wanted.top)) == (True, wanted.top, None)
    with pytest.raises(NotFound):
        check(store, "%s/team/app@sha256:%s" % (registry.host, "0" * 64))
    with pytest.raises(NotFound):
        check(store, "%s/team/app:2" % registry.host)


def test_check_tells_honestly_what_a_pull_would_change(store: Store, registry: FakeRegistry) -> None:
    one, two = image("one"), image("two")
    name = registry.add("team/app", "1", build_index({"linux/amd64": one}))
    assert check(store, name, platform="linux/amd64") == (
        True,
        digest_of(registry.manifests[("team/app", "1")][0]),
        None,
    )
    assert len(registry.requests) == 1
    pull(store, name, platform="linux/amd64")
    registry.add("team/app", "1", build_index({"linux/amd64": one, "linux/arm64": two}))
    answer = check(store, name, platform="linux/amd64")
    assert not answer.changed and answer.image_id == one.id  # the index grew; our image is the same
    registry.add("team/app", "1", build_index({"linux/amd64": two}))
    answer = check(store, name, platform="linux/amd64")
    assert answer.changed and answer.image_id == two.id
    assert store.images.by_reference(name).id == one.id  # type: ignore[union-attr]
    assert pull(store, name, platform="linux/amd64").changed


def test_a_moved_tag_brings_only_what_is_new(store: Store, registry: FakeRegistry) -> None:
    base = layer({"base": noise(50000)})
    old, new = build_image([base, layer({"a": b"1"})]), build_image([base, layer({"a": b"2"})])
    name = registry.add("team/app", "1", old)
    pull(store, name)
    registry.add("team/app", "1", new)
    report = pull(store, name)
    assert report.changed and report.layers_reused == 1 and report.received < 5000
    assert store.images.by_reference(name).id == new.id  # type: ignore[union-attr]
    assert store.images.get(old.id) is not None and store.images.references(old.id) == []


def test_a_second_name_for_the_same_image_downloads_nothing(store: Store, registry: FakeRegistry) -> None:
    wanted = image()
    pull(store, registry.add("team/app", "1", wanted))
    report = pull(store, registry.add("other/app", "2", wanted))
    assert report.changed and report.received == 0 and not registry.seen("/v2/other/app/blobs/")
    assert len(store.images.references(wanted.id)) == 2


def test_attestations_are_skipped_and_the_platform_is_chosen(store: Store, registry: FakeRegistry) -> None:
    arm, amd = image("arm", architecture="arm64"), image("amd", architecture="amd64")
    name = registry.add("team/app", "1", build_index({"linux/arm64/v8": arm, "linux/amd64": amd}, attestation=True))
    report = pull(store, name, platform="linux/amd64")
    assert report.image.id == amd.id and report.digest == digest_of(registry.manifests[("team/app", "1")][0])
    assert pull(store, name, platform="linux/arm64").image.id == arm.id
    with pytest.raises(NotFound, match=r"linux/s390x .* it has linux/amd64, linux/arm64"):
        pull(store, name, platform="linux/s390x")
    with pytest.raises(UsageError):
        pull(store, name, platform="linux//")


def test_another_platform_than_asked_for_is_refused_and_than_the_hosts_is_warned_of(
    store: Store, registry: FakeRegistry
) -> None:
    name = registry.add("team/app", "1", image(architecture="s390x"))
    with pytest.raises(NotFound, match=r"wanted linux/amd64, actual: linux/s390x"):
        pull(store, name, platform="linux/amd64")
    assert is_empty(store) and not store.images.list()
    report = pull(store, name)
    assert report.changed and "does not match the detected host platform" in report.warnings[0]
    assert pull(store, name, platform="linux/s390x").warnings == []


def _serve(registry: FakeRegistry, document: dict[str, Any], kind: str = OCI["manifest"]) -> str:
    data = json.dumps(document).encode()
    for reference in ("1", digest_of(data)):
        registry.manifests[("team/app", reference)] = (data, kind)
    return "%s/team/app:1" % registry.host


def _document(wanted: Image) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(wanted.manifests[wanted.top][0])
    return result


def test_indexes_of_indexes_end(store: Store, registry: FakeRegistry) -> None:
    top = build_index({"linux/amd64": image()})
    for depth in range(1, 5):
        data, kind = top.manifests[top.top]
        entry = descriptor(data, kind)
        outer = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}).encode()
        top = top._replace(top=digest_of(outer), manifests={**top.manifests, digest_of(outer): (outer, kind)})
        name = registry.add("team/app", "d%d" % depth, top)
        if depth < 3:
            pull(store, name, platform="linux/amd64")
        else:
            with pytest.raises(RegistryError, match="3 deep"):
                pull(store, name, platform="linux/amd64")


def test_artifacts_and_strange_layers_are_refused_before_any_blob(
    store: Store, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zstd, "_found", [None])  # a host that cannot read it
    wanted = image()
    registry.add("team/app", "0", wanted)
    for change, words in (
        ({"config": descriptor(b"{}", "application/vnd.cncf.helm.config.v1+json")}, "artifact"),
        ({"layers": [descriptor(b"x", OCI["layer"] + "+zstd")]}, "zstd"),
        ({"layers": [descriptor(b"x", OCI["layer"] + "+gzip+encrypted")]}, "encrypted"),
    ):
        with pytest.raises(Unsupported, match=words):
            pull(store, _serve(registry, {**_document(wanted), **change}))
    with pytest.raises(RegistryError, match="two different images"):
        pull(store, _serve(registry, {**_document(wanted), "manifests": []}))
    assert not registry.seen("/blobs/") and is_empty(store)


@pytest.mark.skipif(zstd.backend() is None, reason="nothing here reads zstd")
@pytest.mark.parametrize("kind", [OCI["layer"] + "+zstd", OCI["layer.gzip"], DOCKER["layer"] + ".zstd"])
def test_zstd_layers_whatever_they_are_called(store: Store, registry: FakeRegistry, kind: str) -> None:
    data = layer({"a": b"x" * 5000})
    blob = skippable(b"table of contents") + frame(data[:3000]) + frame(data[3000:])
    wanted = build_image([data])
    document = _document(wanted)
    document["layers"][0] = descriptor(blob, kind)
    registry.blobs.update({**wanted.blobs, digest_of(blob): blob})
    assert pull(store, _serve(registry, document)).image.id == wanted.id


@pytest.mark.skipif(zstd.backend() is None, reason="nothing here reads zstd")
def test_damaged_zstd_is_refused(store: Store, registry: FakeRegistry) -> None:
    wanted = image()
    blob = b"\x28\xb5\x2f\xfd" + b"x" * 100
    document = _document(wanted)
    document["layers"][0] = descriptor(blob, OCI["layer"] + "+zstd")
    registry.blobs.update({**wanted.blobs, digest_of(blob): blob})
    with pytest.raises(IntegrityError, match="damaged zstd data"):
        pull(store, _serve(registry, document))
    assert is_empty(store)


def _broken(registry: FakeRegistry, store: Store, kind: type[WharfError], words: str, **options: Any) -> None:
    with pytest.raises(kind, match=words):
        pull(store, "%s/team/app:1" % registry.host, **options)
    assert is_empty(store)


def test_wrong_bytes_of_the_right_length_are_refused(store: Store, registry: FakeRegistry) -> None:
    wanted = image()
    registry.add("team/app", "1", wanted)
    digest = _document(wanted)["layers"][0]["digest"]
    registry.script("/blobs/" + digest, fake.body_of(b"x" * len(wanted.blobs[digest])), times=9)
    _broken(registry, store, IntegrityError, "digest")
    registry._scripts.clear()
    assert pull(store, "%s/team/app:1" % registry.host).changed


@pytest.mark.parametrize("change", [-1, 1, 1000])
def test_sizes_that_lie_are_refused(store: Store, registry: FakeRegistry, change: int) -> None:
    wanted = image()
    registry.blobs.update(wanted.blobs)
    for where in ("config", "layer"):
        document = _document(wanted)
        (document["config"] if where == "config" else document["layers"][0])["size"] += change
        _serve(registry, document)
        _broken(registry, store, IntegrityError, "bytes")
        # Without Content-Length the lie shows only at the end of the body, or past it.
        digest = (document["config"] if where == "config" else document["layers"][0])["digest"]
        registry.script("/blobs/" + digest, fake.chunked(wanted.blobs[digest]), times=1)
        _broken(registry, store, IntegrityError, "bytes")
        registry._scripts.clear()


def test_short_bodies_are_resumed(store: Store, registry: FakeRegistry) -> None:
    wanted = image()
    name = registry.add("team/app", "1", wanted)
    digest = _document(wanted)["layers"][0]["digest"]
    data = wanted.blobs[digest]
    registry.script("/blobs/" + digest, fake.body_of(data[:5000], length=len(data)))
    assert pull(store, name).received < len(data) + 3000
    assert [r.headers.get("range") for r in registry.seen("/blobs/" + digest)] == [None, "bytes=5000-"]


def test_resets_anywhere_are_resumed(store: Store, registry: FakeRegistry) -> None:
    wanted = image(size=3 << 20)
    name = registry.add("team/app", "1", wanted)
    digest = _document(wanted)["layers"][0]["digest"]
    offsets = random.Random(3)
    for _n in range(12):
        registry.script("/blobs/" + digest, fake.reset_after(offsets.randrange(0, 400_000)))
    report = pull(store, name)
    assert report.image.id == wanted.id
    assert len(registry.seen("/blobs/" + digest)) == 13
    # What the kernel had buffered may be lost with a reset, so a little is fetched again; not all, and nothing twice.
    assert report.received < (3 << 20) * 1.3


def test_a_registry_without_ranges_is_started_over(store: Store, registry: FakeRegistry) -> None:
    wanted = image()
    name = registry.add("team/app", "1", wanted)
    digest = _document(wanted)["layers"][0]["digest"]
    data = wanted.blobs[digest]
    registry.script("/blobs/" + digest, fake.body_of(data[:5000], length=len(data)))
    registry.script("/blobs/" + digest, fake.ignore_range())
    assert pull(store, name).image.id == wanted.id


def test_a_line_that_never_brings_a_byte_ends(store: Store, registry: FakeRegistry) -> None:
    wanted = image()
    registry.add("team/app", "1", wanted)
    digest = _document(wanted)["layers"][0]["digest"]
    registry.script("/blobs/" + digest, fake.reset_after(0), times=99)
    _broken(registry, store, RegistryError, "broke off")
    assert len(registry.seen("/blobs/" + digest)) <= 30


def test_a_line_that_drips_ends(store: Store, registry: FakeRegistry) -> None:
    wanted = image()
    registry.add("team/app", "1", wanted)
    digest = _document(wanted)["layers"][0]["digest"]
    registry.script("/blobs/" + digest, fake.drip(len(wanted.blobs[digest]), 0.05), times=99)
    _broken(registry, store, RegistryError, "bytes in", transport=transport(timeout=0.6))


def test_what_an_earlier_process_left_is_used(store: Store, registry: FakeRegistry) -> None:
    wanted = image(size=100_000)
    name = registry.add("team/app", "1", wanted)
    digest = _document(wanted)["layers"][0]["digest"]
    with open("%s/ingest-%s" % (store.paths.tmp, digest[7:]), "wb") as stream:
        stream.write(wanted.blobs[digest][:60_000])
    report = pull(store, name)
    assert report.received < 50_000
    assert registry.seen("/blobs/" + digest)[0].headers["range"] == "bytes=60000-"


def test_rubbish_an_earlier_process_left_costs_a_restart(store: Store, registry: FakeRegistry) -> None:
    wanted = image(size=100_000)
    name = registry.add("team/app", "1", wanted)
    digest = _document(wanted)["layers"][0]["digest"]
    for rubbish in (b"r" * 60_000, b"r" * len(wanted.blobs[digest]), b"r" * 500_000):
        with open("%s/ingest-%s" % (store.paths.tmp, digest[7:]), "wb") as stream:
            stream.write(rubbish)
        assert pull(store, name).image.id == wanted.id
        store.images.remove(wanted.id)
        store.collect()


def test_a_blob_that_rotted_in_the_store_is_fetched_again(store: Store, registry: FakeRegistry) -> None:
    wanted = image()
    name = registry.add("team/app", "1", wanted)
    digest = _document(wanted)["layers"][0]["digest"]
    blob = bytearray(wanted.blobs[digest])
    blob[3000:3010] = b"0123456789"
    with open(store.blobs.path(digest), "wb") as stream:
        stream.write(blob)
    assert pull(store, name).image.id == wanted.id
    assert len(registry.seen("/blobs/" + digest)) == 1


def test_a_diff_id_that_does_not_fit_is_refused_and_its_blob_dropped(store: Store, registry: FakeRegistry) -> None:
    wanted = build_image([layer({"a": b"1"})], extra={"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}})
    registry.add("team/app", "1", wanted)
    _broken(registry, store, IntegrityError, "the image's config names")
    assert not store.blobs.has(_document(wanted)["layers"][0]["digest"])


def _with_blob(registry: FakeRegistry, tar: bytes, blob: bytes) -> str:
    wanted = build_image([tar])
    document = _document(wanted)
    document["layers"] = [descriptor(blob, OCI["layer.gzip"])]
    registry.blobs.update({**wanted.blobs, digest_of(blob): blob})
    return _serve(registry, document)


def test_gzip_of_many_members_is_read(store: Store, registry: FakeRegistry) -> None:
    tar = layer({"a": noise(300_000)})
    blob = b"".join(gzip.compress(tar[i : i + 10_000], mtime=0) for i in range(0, len(tar), 10_000))
    assert pull(store, _with_blob(registry, tar, blob + gzip.compress(b""))).changed


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda blob: blob + b"garbage", "garbage"),
        (lambda blob: blob + b"\x1f", "middle of its compressed|damaged"),
        (lambda blob: blob[:-5], "middle of its compressed"),
        (lambda blob: blob[:-8] + b"\0" * 8, "damaged gzip"),
        (lambda blob: blob[:100] + b"\xff" * 50 + blob[150:], "damaged gzip"),
    ],
)
def test_gzip_that_is_not_right_to_its_last_byte_is_refused(
    store: Store, registry: FakeRegistry, spoil: Any, words: str
) -> None:
    tar = layer({"a": noise(30_000)})
    _with_blob(registry, tar, spoil(gzip.compress(tar, mtime=0)))
    _broken(registry, store, IntegrityError, words)


def test_a_decompression_bomb_is_stopped_early(store: Store, registry: FakeRegistry) -> None:
    import zlib

    packer = zlib.compressobj(9, wbits=31)
    blob = b"".join(packer.compress(b"\0" * (1 << 20)) for _n in range(200)) + packer.flush()
    _with_blob(registry, layer({"a": b"x"}), blob)
    _broken(registry, store, IntegrityError, "bomb|larger|times")


def test_configs_are_checked_against_the_layers(store: Store, registry: FakeRegistry) -> None:
    wanted = image(extra={"rootfs": {"type": "layers", "diff_ids": []}})
    registry.add("team/app", "1", wanted)
    _broken(registry, store, RegistryError, "0 entries for 2 layers")


def test_more_layers_than_can_be_mounted_are_refused_before_any_blob(store: Store, registry: FakeRegistry) -> None:
    name = registry.add("team/app", "1", build_image([layer({"a": b"x"})] * (MAX_LAYERS + 1)))
    with pytest.raises(Unsupported, match="layers"):
        pull(store, name)
    assert not registry.seen("/blobs/")


@pytest.mark.parametrize("count", [0, 1, 20])
def test_no_layers_many_layers_and_equal_layers_are_images_too(
    store: Store, registry: FakeRegistry, count: int
) -> None:
    wanted = build_image([layer({"a": b"%d" % (n // 2)}) for n in range(count)])
    report = pull(store, registry.add("team/app", "1", wanted))
    assert len(report.image.layers) == count and len({one.chain_id for one in report.image.layers}) == count
    layers = {one["digest"] for one in _document(wanted)["layers"]}
    assert len(registry.seen("/blobs/")) == 1 + len(layers)


def test_a_token_that_expires_in_the_middle_is_renewed(store: Store, registry: FakeRegistry) -> None:
    registry.auth, registry.token_life = ("bearer", "", ""), 5
    wanted = build_image([layer({"a": noise(5000)}) for _n in range(6)])
    assert pull(store, registry.add("team/app", "1", wanted)).image.id == wanted.id
    assert 2 <= registry.issued <= 4


def test_one_that_fails_stops_the_others_and_says_why(store: Store, registry: FakeRegistry) -> None:
    wanted = build_image([layer({"a%d" % n: noise(200_000)}) for n in range(6)])
    registry.add("team/app", "1", wanted)
    # the first one: layers are committed in order, so no other can be there by the time it fails
    digest = _document(wanted)["layers"][0]["digest"]
    registry.script("/blobs/" + digest, fake.status(404), times=9)
    one = transport()
    _broken(registry, store, NotFound, "does not exist", transport=one)
    assert not one.cancelled.is_set()
    registry._scripts.clear()
    assert pull(store, "%s/team/app:1" % registry.host, transport=one).changed


def test_a_failure_does_not_wait_for_a_stalled_line(store: Store, registry: FakeRegistry) -> None:
    wanted = build_image([layer({"a%d" % n: noise(50_000)}) for n in range(2)])
    registry.add("team/app", "1", wanted)
    first, second = (one["digest"] for one in _document(wanted)["layers"])
    registry.script("/blobs/" + first, fake.drip(len(wanted.blobs[first]), 3000))
    registry.script("/blobs/" + second, fake.status(404))
    _broken(registry, store, NotFound, "does not exist", transport=transport(timeout=2500))


def test_progress_is_told_at_most_four_times_a_second_and_ends_complete(store: Store, registry: FakeRegistry) -> None:
    events: list[dict[str, Any]] = []
    wanted = image(size=2 << 20)
    begun = time.monotonic()
    report = pull(store, registry.add("team/app", "1", wanted), progress=events.append)
    assert len(events) <= 4 * (time.monotonic() - begun) + 5
    last = events[-1]
    assert last["phase"] == "done" and last["done"] == last["total"] and last["layers_done"] == last["layers"] == 2
    assert set(report.timings) == {"resolve", "config", "download", "unpack", "commit", "total"}
    assert abs(sum(report.timings.values()) - 2 * report.timings["total"]) < 0.1
