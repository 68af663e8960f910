# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that unpack while blobs come in: they are early, and never the ones who decide."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Optional

import pytest
from helpers import fake_registry as fake
from helpers.fake_registry import Behaviour, FakeRegistry, Handler
from helpers.images import Image, build_image, layer
from module_utils._engine.errors import Interrupted, WharfError
from module_utils._engine.images import apply, builder, workshop
from module_utils._engine.images import pull as pulling
from module_utils._engine.images.reference import parse
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.registry.transport import Transport
from module_utils._engine.store.state import Store

noise = random.Random(11).randbytes


@pytest.fixture(autouse=True)
def form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workshop, "WORTH_IT", 0)
    monkeypatch.setenv("WHARF_LAYER_FORM", "erofs")
    monkeypatch.setenv("HOME", "/nonexistent")


def pull(store: Store, name: str) -> pulling.PullReport:
    transport = Transport(timeout=20, sleep=lambda _seconds: None)
    return pulling.pull_report(store, Kernel(), parse(name), transport=transport)


def large(layers: int = 1) -> Image:
    return build_image([layer({"file-%d-%d" % (n, m): noise(300_000) for m in range(5)}) for n in range(layers)])


def digests(image: Image) -> list[str]:
    """Of the layers' blobs."""
    return [digest for digest in image.blobs if digest != image.config_digest]


def half_then(meanwhile: Callable[[], None], start_over: Optional[bytes] = None) -> Behaviour:
    """The first half of a blob, then ``meanwhile``, then the rest; with ``start_over`` the first half is that, and the
    connection breaks."""

    def act(handler: Handler, path: str) -> bool:
        data = handler.blob(path)
        half = len(data) // 2
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:half] if start_over is None else start_over[:half])
        handler.wfile.flush()
        meanwhile()
        if start_over is None:
            handler.wfile.write(data[half:])
        else:
            handler.reset()
        return True

    return act


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it never happened")
        time.sleep(0.005)


def unpacked(store: Store) -> int:
    """Bytes of archives that are being built."""
    return sum(os.stat(path).st_size for path in glob.glob(store.paths.tmp + "/layer-*/tar"))


def pipes() -> int:
    """How many pipes this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # a socket of the registry's that was just closed
            found += os.readlink("/proc/self/fd/" + name).startswith("pipe:")
    return found


_others: set[int] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    """Children that other tests of this process left to be reaped."""
    _others.clear()
    _others.update(children())


def children() -> list[int]:
    """Those that the test at hand has made."""
    with open("/proc/self/task/%d/children" % os.getpid()) as stream:
        return [int(pid) for pid in stream.read().split() if int(pid) not in _others]


def test_a_layer_is_unpacked_while_its_blob_still_comes_in(store: Store, registry: FakeRegistry) -> None:
    image = large()
    name = registry.add("team/app", "1", image)
    registry.script("/blobs/" + digests(image)[0], half_then(lambda: until(lambda: unpacked(store) > 300_000)))
    assert pull(store, name).image.id == image.id
    assert children() == [] and os.listdir(store.paths.tmp) == []


def test_layers_are_unpacked_side_by_side_but_committed_from_the_base_up(
    store: Store, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    image = large(2)
    name = registry.add("team/app", "1", image)

    def second_is_ready() -> bool:
        return len(glob.glob(store.paths.tmp + "/layer-*")) == 2 and unpacked(store) > 1_500_000

    registry.script("/blobs/" + digests(image)[0], half_then(lambda: until(second_is_ready)))
    assert pull(store, name).image.id == image.id
    events = [one.chain_id for one in sorted(store.layers.list(), key=lambda one: bool(one.parent))]
    assert events == [one.chain_id for one in store.images.list()[0].layers]


def test_what_a_builder_read_of_a_file_that_begins_anew_is_forgotten(store: Store, registry: FakeRegistry) -> None:
    image = large()
    name = registry.add("team/app", "1", image)
    other = next(data for digest, data in large().blobs.items() if len(data) > 1000)
    path = "/blobs/" + digests(image)[0]
    registry.script(path, half_then(lambda: until(lambda: unpacked(store) > 300_000), start_over=other))
    registry.script(path, fake.ignore_range())
    assert pull(store, name).image.id == image.id
    assert os.listdir(store.paths.tmp) == []


def test_a_builder_that_is_killed_is_told_and_the_next_pull_completes(store: Store, registry: FakeRegistry) -> None:
    image = large()
    name = registry.add("team/app", "1", image)

    def kill() -> None:
        until(lambda: unpacked(store) > 0)
        for pid in children():
            os.kill(pid, signal.SIGKILL)

    registry.script("/blobs/" + digests(image)[0], half_then(kill))
    with pytest.raises(Interrupted, match=r"unpacked a layer of .*team/app:1 was killed"):
        pull(store, name)
    assert children() == [] and not store.images.list() and not store.layers.list()
    store.recover()
    assert [entry for entry in os.listdir(store.paths.tmp) if not entry.startswith("ingest-")] == []
    assert pull(store, name).image.id == image.id


def test_a_host_that_has_no_process_left_pulls_by_itself(
    store: Store, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = large(2)
    before = pipes()

    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)
    assert pull(store, registry.add("team/app", "1", image)).image.id == image.id
    monkeypatch.undo()
    assert pipes() == before


def test_nothing_is_committed_of_a_blob_that_is_not_what_it_should_be(store: Store, registry: FakeRegistry) -> None:
    """The bytes that came are a sound layer, with the DiffID of the config: only the blob's digest is wrong."""
    image = large()
    name = registry.add("team/app", "1", image)
    digest = digests(image)[0]
    honest = image.blobs[digest]
    registry.script("/blobs/" + digest, fake.body_of(honest[:4] + b"time" + honest[8:]), times=9)  # gzip's time stamp
    with pytest.raises(WharfError, match="digest"):
        pull(store, name)
    assert not store.layers.list() and not store.images.list()


class Signed:
    """A policy that is content."""

    def require(self, *_what: object) -> None:
        return


def test_layers_that_share_a_blob_that_rotted_in_the_store_get_it_anew(store: Store, registry: FakeRegistry) -> None:
    same = layer({"file": noise(400_000)})
    image = build_image([same, same, same])
    (digest,) = digests(image)
    store.blobs.put_bytes(image.blobs[digest])
    with open(store.blobs.path(digest), "r+b") as stream:
        stream.seek(200_000)
        stream.write(b"rotten")
    report = pull(store, registry.add("team/app", "1", image))
    assert report.image.id == image.id and len(registry.seen("/blobs/" + digest)) == 1


def test_where_signatures_are_asked_for_no_byte_is_unpacked_before_its_blob_is_verified(
    store: Store, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = large(3)
    name = registry.add("team/app", "1", image)
    orders: list[bytes] = []
    send = workshop.Workshop._order

    def noting(self: workshop.Workshop, process: object, kind: bytes, layer: int, count: int) -> None:
        orders.append(kind)
        send(self, process, kind, layer, count)  # type: ignore[arg-type]

    monkeypatch.setattr(workshop.Workshop, "_order", noting)
    transport, policy = Transport(timeout=20), Signed()
    report = pulling.pull_report(store, Kernel(), parse(name), transport=transport, policy=policy)  # type: ignore[arg-type]
    assert report.image.id == image.id
    assert builder.BYTES not in orders and builder.RESTART not in orders and orders.count(builder.VERIFIED) >= 3


def test_a_small_image_needs_no_builders(store: Store, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("WHARF_LAYER_FORM", "erofs")
    own: list[str] = []
    monkeypatch.setattr(workshop, "Workshop", None)
    monkeypatch.setattr(apply, "apply_layer", _noting(own, apply.apply_layer))
    image = build_image([layer({"a": b"1"}), layer({"b": b"2"})])
    assert pull(store, registry.add("team/app", "1", image)).image.id == image.id
    assert own == image.diff_ids


def _noting(own: list[str], work: Callable[..., object]) -> Callable[..., object]:
    def noting(store: object, kernel: object, one: object, *rest: object, **options: object) -> object:
        own.append(one.diff_id)  # type: ignore[attr-defined]
        return work(store, kernel, one, *rest, **options)

    return noting
