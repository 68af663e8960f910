# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Uploads to a registry that breaks off, forgets, limits and lies: all bytes arrive, and no login goes astray."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from helpers import fake_registry as fake
from helpers.fake_registry import FakeRegistry, Handler
from helpers.images import digest_of
from module_utils._engine.errors import AuthError, IntegrityError, RegistryError
from module_utils._engine.registry import uploads
from module_utils._engine.registry.client import RegistryClient
from module_utils._engine.registry.credentials import Credential
from module_utils._engine.registry.session import Session
from module_utils._engine.registry.transport import Broken, Transport
from module_utils._engine.registry.uploads import Uploader, _end_of

DATA = random.Random(1).randbytes(50_000)
DIGEST = digest_of(DATA)
UPLOADS = "/blobs/uploads/"


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


def uploader(registry: FakeRegistry, chunk: int = 0, login: bool = True) -> Uploader:
    known = Credential("me", "secret") if login else None
    transport = Transport(sleep=lambda _s: None, timeout=5, credentials=lambda _h, _r: known)
    one = Uploader(RegistryClient(registry.host, transport), "team/app")
    one._chunk = chunk or one._chunk
    return one


def send(to: Uploader, data: bytes = DATA, digest: str = DIGEST) -> list[int]:
    """Upload ``data``; returns how the position moved."""
    moved = [0]
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        to.upload(digest, len(data), file.fileno(), lambda n: moved.append(moved[-1] + n), moved.append)
    return moved


def methods(registry: FakeRegistry) -> list[str]:
    return [request.method for request in registry.seen(UPLOADS)]


def test_a_small_blob_is_one_put(registry: FakeRegistry) -> None:
    assert not uploader(registry).has_blob(DIGEST)
    assert send(uploader(registry))[-1] == len(DATA)
    assert methods(registry) == ["POST", "PUT"] and registry.blobs[DIGEST] == DATA
    assert uploader(registry).has_blob(DIGEST)


def test_an_empty_blob_and_one_of_exactly_one_chunk(registry: FakeRegistry) -> None:
    send(uploader(registry), b"", digest_of(b""))
    send(uploader(registry, len(DATA)))
    assert methods(registry) == ["POST", "PUT"] * 2 and len(registry.blobs) == 2


def test_a_large_blob_goes_in_chunks(registry: FakeRegistry) -> None:
    send(uploader(registry, 20_000))
    assert methods(registry) == ["POST", "PATCH", "PATCH", "PUT"] and registry.blobs[DIGEST] == DATA
    spans = [request.headers.get("content-range") for request in registry.seen(UPLOADS)]
    assert spans == [None, "0-19999", "20000-39999", "40000-49999"]


def test_the_registrys_smallest_chunk_is_respected(registry: FakeRegistry) -> None:
    def begin(handler: Handler, path: str) -> bool:
        handler.registry.uploads["u"] = b""
        handler.answer(202, b"", {"Location": path + "u", "OCI-Chunk-Min-Length": "30000"})
        return True

    registry.script(UPLOADS, begin)
    send(uploader(registry, 1000))
    assert methods(registry) == ["POST", "PATCH", "PUT"] and registry.blobs[DIGEST] == DATA


@pytest.mark.parametrize("seed", range(12))
def test_a_line_that_breaks_anywhere_costs_nothing_but_time(registry: FakeRegistry, seed: int) -> None:
    dice = random.Random(seed)
    for _n in range(3):
        registry.script(UPLOADS, fake.hang_up_after(dice.randrange(25_000), dice.random() < 0.7))
    send(uploader(registry, dice.choice([7_000, 20_000, 100_000])))
    assert registry.blobs[DIGEST] == DATA


def test_a_lost_answer_is_not_a_lost_upload(registry: FakeRegistry) -> None:
    def lose(handler: Handler, path: str) -> bool:
        if handler.command == "PUT":
            handler.registry.blobs[DIGEST] = handler.body
            handler.reset()
            return True
        return False

    registry.script(UPLOADS, lose, times=2)
    send(uploader(registry))
    assert methods(registry).count("PUT") == 1


def test_a_forgotten_upload_is_begun_anew(registry: FakeRegistry) -> None:
    def forget(handler: Handler, path: str) -> bool:
        if handler.command == "PATCH":
            handler.registry.uploads.clear()
        return False

    registry.script(UPLOADS, forget, times=3)
    send(uploader(registry, 20_000))
    assert registry.blobs[DIGEST] == DATA and methods(registry).count("POST") == 2


def test_less_than_was_sent_is_gone_on_from(registry: FakeRegistry) -> None:
    def take_half(handler: Handler, path: str) -> bool:
        if handler.command == "PATCH":
            handler.body = handler.body[: len(handler.body) // 2]
        return False

    registry.script(UPLOADS, take_half, times=3)
    send(uploader(registry, 20_000))
    assert registry.blobs[DIGEST] == DATA


def test_a_body_limit_makes_the_chunks_smaller(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "SMALLEST_CHUNK", 1000)
    registry.body_limit = 13_000
    send(uploader(registry))
    assert registry.blobs[DIGEST] == DATA
    registry.body_limit = 500
    with pytest.raises(RegistryError, match="413"):
        send(uploader(registry), DATA[1:], digest_of(DATA[1:]))


def test_busy_registries_are_waited_for(registry: FakeRegistry) -> None:
    def busy(handler: Handler, path: str) -> bool:
        if handler.command == "POST":
            return False
        handler.answer(503, b"", {"Retry-After": "1"})
        return True

    registry.script(UPLOADS, busy, times=3)
    send(uploader(registry))
    assert registry.blobs[DIGEST] == DATA


def test_it_ends_when_nothing_gets_through(registry: FakeRegistry) -> None:
    registry.script(UPLOADS, fake.hang_up_after(0), times=1000)
    with pytest.raises(Broken):
        send(uploader(registry))
    assert len(registry.requests) < 40


def test_a_token_that_expires_in_mid_push_is_renewed(registry: FakeRegistry) -> None:
    registry.auth = ("bearer", "me", "secret")
    registry.token_life = 2
    send(uploader(registry, 10_000))
    assert registry.blobs[DIGEST] == DATA and registry.issued >= 2
    scopes = [request.path for request in registry.seen("/token")]
    assert all("scope=repository%3Ateam%2Fapp%3Apull%2Cpush" in path for path in scopes)


@pytest.mark.parametrize("relative", [True, False])
def test_location_may_be_relative_or_absolute(registry: FakeRegistry, relative: bool) -> None:
    registry.auth = ("basic", "me", "secret")
    registry.upload_base = "" if relative else registry.url
    send(uploader(registry, 20_000))
    assert registry.blobs[DIGEST] == DATA


def test_another_host_gets_the_bytes_but_no_login(registry: FakeRegistry) -> None:
    registry.auth = ("basic", "me", "secret")
    with FakeRegistry() as other:
        other.uploads, other.blobs = registry.uploads, registry.blobs
        registry.upload_base = other.upload_base = other.url
        send(uploader(registry, 20_000))
        assert registry.blobs[DIGEST] == DATA
        assert len(other.requests) == 3 and not any("authorization" in r.headers for r in other.requests)
        other.auth = ("basic", "me", "secret")
        with pytest.raises(RegistryError, match="asks for a login of its own"):
            send(uploader(registry), b"x", digest_of(b"x"))
        assert not any("authorization" in request.headers for request in other.requests)


def resolve(base: str, location: str) -> str:
    class Client:
        def __init__(self) -> None:
            self.host = "r.example.com"
            self.session = Session(self.host, Transport())

    class Answer:
        url = base + "/v2/x/blobs/uploads/"

    one = Client()
    one.session._base = base
    one.session.auth.home = uploads.origin(base)
    return Uploader(one, "x")._resolve(Answer(), location)  # type: ignore[arg-type]


def test_location_never_leads_inward_nor_out_of_tls() -> None:
    base = "https://r.example.com"
    assert resolve(base, "/v2/x?a=b%2F") == base + "/v2/x?a=b%2F"
    assert resolve(base, "https://cdn.example.com/x") == "https://cdn.example.com/x"
    # A registry that does not know of the TLS in front of it.
    assert resolve(base, "http://r.example.com/v2/x?a=b") == base + "/v2/x?a=b"
    bad = ("http://cdn.example.com/", "https://127.0.0.1/", "https://169.254.169.254/", "file:///etc/passwd")
    for location in bad:
        with pytest.raises(RegistryError):
            resolve(base, location)


def test_who_may_not_write_is_told_so(registry: FakeRegistry) -> None:
    registry.script(UPLOADS, fake.status(403, b'{"errors":[{"code":"DENIED","message":"read only"}]}'))
    with pytest.raises(AuthError, match=r"may not write there \(DENIED: read only\)"):
        send(uploader(registry))
    registry.auth = ("basic", "me", "secret")
    with pytest.raises(AuthError, match="none are known"):
        send(uploader(registry, login=False))


def test_a_blob_damaged_on_disk_is_told_from_one_damaged_on_the_way(registry: FakeRegistry) -> None:
    with pytest.raises(IntegrityError, match="damaged on disk"):
        send(uploader(registry), DATA[:-1] + b"!")
    assert registry.blobs == {}


def test_a_mount_that_fails_is_no_failure(registry: FakeRegistry) -> None:
    registry.mountable = False
    to = uploader(registry)
    assert not to.mount(DIGEST, "other/app") and registry.uploads == {}  # what was begun is given up
    for behaviour in (fake.status(400), fake.status(403), fake.redirect("http://127.0.0.1:1/")):
        registry.script(UPLOADS, behaviour)
        assert not to.mount(DIGEST, "other/app")
    registry.mountable, registry.blobs[DIGEST] = True, DATA
    assert to.mount(DIGEST, "other/app")
    assert registry.seen("mount=" + DIGEST)[-1].path.endswith("&from=other%2Fapp")


def test_a_manifest_is_stored_as_sent_or_it_is_an_error(registry: FakeRegistry) -> None:
    manifest = b'{"schemaVersion":2,"manifests":[]}'
    kind = "application/vnd.oci.image.index.v1+json"
    assert uploader(registry).put_manifest("1", manifest, kind) == digest_of(manifest)
    assert registry.manifests[("team/app", "1")] == (manifest, kind)
    registry.script("/manifests/", fake.status(503), times=2)
    assert uploader(registry).put_manifest("1", manifest, kind)
    registry.script("/manifests/", fake.status(201, Docker_Content_Digest="sha256:" + "0" * 64))
    with pytest.raises(IntegrityError, match="stored"):
        uploader(registry).put_manifest("1", manifest, kind)


@pytest.mark.parametrize(
    ("value", "end"),
    [("0-99", 100), ("bytes=0-99", 100), ("0-0", 0), ("", -1), ("5-9", -1), ("0-x", -1), ("0--5", -1)],
)
def test_the_range_of_an_upload(value: str, end: int) -> None:
    assert _end_of(value) == end


def test_cancelling_stops_an_upload(registry: FakeRegistry) -> None:
    to = uploader(registry)
    transport: Any = to._transport
    calls: list[Optional[int]] = []

    def sent(count: int) -> None:
        calls.append(count)
        transport.cancelled.set()

    with tempfile.TemporaryFile() as file:
        os.ftruncate(file.fileno(), 1 << 20)
        with pytest.raises(uploads.Cancelled):
            to.upload(DIGEST, 1 << 20, file.fileno(), sent, lambda _n: None)
    assert len(calls) == 1
