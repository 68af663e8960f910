# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locks exclude, end in time, keep their order; and eight processes at once keep every promise."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest
from helpers.store_kit import check_invariants, container, fork_all, hex_id, network, put_image
from module_utils._engine.errors import Conflict, InUse, NotFound, TimedOut, WharfError
from module_utils._engine.paths import Paths
from module_utils._engine.store.locks import quote
from module_utils._engine.store.records import EndpointRecord, PortRecord
from module_utils._engine.store.state import Store


def _holder(paths: Paths, seconds: float, shared: bool = False) -> int:
    """A process that holds container/web; returns its pid when it has it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with Store.open(paths) as store, store.lock("container", "web", shared=shared):
                os.write(write, b"x")
                time.sleep(seconds)
        finally:
            os._exit(0)
    os.close(write)
    os.read(read, 1)
    os.close(read)
    return pid


def test_waiting_for_a_lock_ends_and_names_the_holder(store):
    pid = _holder(store.paths, 10)
    try:
        with pytest.raises(TimedOut, match=str(pid)) as caught, store.lock("container", "web", timeout=0.1):
            pass
        assert caught.value.details["holders"] == [pid]
        with store.lock("container", "db", timeout=0.1):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with store.lock("container", "web", timeout=0.1):
        pass


def test_shared_locks_share_and_keep_exclusive_ones_out(store):
    pid = _holder(store.paths, 10, shared=True)
    try:
        with store.lock("container", "web", shared=True, timeout=0.1):
            pass
        with pytest.raises(TimedOut), store.lock("container", "web", timeout=0.05):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_lock_may_be_taken_again_by_its_holder(store):
    with store.lock("container", "web"):
        with store.lock("container", "web"), store.lock("container", "web", shared=True):
            pass
        with Store.open(store.paths) as other, other.lock("container", "web", timeout=0.1):
            pass
        with Store.open(store.paths):
            pid = os.fork()
            if pid == 0:
                try:
                    with Store.open(store.paths) as child, child.lock("container", "web", timeout=0.05):
                        os._exit(1)
                except TimedOut:
                    os._exit(0)
                finally:
                    os._exit(2)
            assert os.waitpid(pid, 0)[1] == 0
    with store.lock("container", "web", shared=True), pytest.raises(WharfError, match="shared"):
        store.lock("container", "web").__enter__()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("container", "web"), ("network", "n")),
        (("network", "n"), ("image", "i")),
        (("image", "i"), ("store", "")),
        (("container", "b"), ("container", "a")),
    ],
)
def test_a_violation_of_the_order_is_an_error_not_a_deadlock(first, second, store):
    with store.lock(*first), pytest.raises(WharfError, match="order"):
        store.lock(*second).__enter__()
    with store.lock(*second), store.lock(*first):
        pass


def test_locks_are_not_waited_for_inside_a_transaction(store):
    with store.transaction(), pytest.raises(WharfError, match="inside"):
        store.lock("container", "web").__enter__()


def test_threads_exclude_each_other(store):
    order = []

    def other() -> None:
        with store.lock("container", "web"):
            order.append("other")

    thread = threading.Thread(target=other)
    with store.lock("container", "web"):
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


def test_a_transaction_keeps_other_threads_out(store):
    def other() -> None:
        store.events.add("a", "other", "x")

    thread = threading.Thread(target=other)
    with pytest.raises(RuntimeError), store.transaction():
        thread.start()
        time.sleep(0.05)
        store.events.add("a", "first", "x")
        raise RuntimeError
    thread.join()
    assert [event.action for event in store.events.list()] == ["other"]


def test_lock_files_vanish_with_collect_and_names_cannot_leave_the_directory(store):
    for name in ("docker.io/library/alpine:3", "../../etc/passwd", "x" * 1000, "ä\udc80"):
        with store.lock("image", name):
            assert len(os.listdir(store.paths.locks)) >= 1
            assert "/" not in quote(name)
            store.collect()
            with open("/proc/locks"):
                pass
        store.collect()
        assert os.listdir(store.paths.locks) == []


def test_a_lock_file_removed_under_a_waiter_still_excludes(paths):
    Store.open(paths).close()
    counter = paths.state + "/counter"
    with open(counter, "w") as file:
        file.write("0")

    def work() -> None:
        with Store.open(paths) as store:
            for _n in range(50):
                with store.lock("container", "web"):
                    with open(counter) as file:
                        number = int(file.read())
                    with open(counter, "w") as file:
                        file.write(str(number + 1))
                store.locks.tidy()

    fork_all([work] * 6)
    with open(counter) as file:
        assert file.read() == "300"


# -- everything at once ----------------------------------------------------------------------------------------


def test_eight_processes_keep_names_leases_ports_and_images_whole(paths):
    with Store.open(paths) as store:
        store.networks.create(network("n"))
    fork_all([lambda seed=seed: _work(paths, seed) for seed in range(8)], timeout=90)
    with Store.open(paths) as store:
        check_invariants(store)
        names = [record.name for record in store.containers.list()]
        assert len(names) == len(set(names))
        addresses = [endpoint.ipv4 for endpoint in store.networks.endpoints()]
        assert len(addresses) == len(set(addresses))
        ports = [(port.host_port, port.protocol) for port in store.networks.ports()]
        assert len(ports) == len(set(ports))
        store.collect()
        check_invariants(store)


def _work(paths: Paths, seed: int) -> None:
    chance = random.Random(seed)
    with Store.open(paths) as store:
        for _n in range(50):
            try:
                _one(store, chance)
            except (Conflict, InUse, NotFound):
                pass


def _one(store: Store, chance: random.Random) -> None:
    name = "c%d" % chance.randrange(6)
    image = "i%d" % chance.randrange(4)
    what = chance.randrange(6)
    if what == 0:
        with store.lock("image", image):
            put_image(store, image, ["base", image], ["ref:" + image])
    elif what == 1:
        with store.lock("image", image):
            store.images.remove(_image_id(store, image))
    elif what in (2, 3):
        _create(store, name, image, chance)
    elif what == 4:
        with store.lock("container", name):
            found = store.containers.by_name(name)
            if found:
                store.containers.remove(found.id)
    else:
        store.collect()


def _create(store: Store, name: str, image: str, chance: random.Random) -> None:
    record = container(name, id=hex_id("%s %f" % (name, chance.random())))
    with store.lock("network", "n", shared=True), store.lock("container", name), store.transaction():
        store.containers.create(record._replace(image_id=_image_id(store, image)))
        address = "10.0.0.%d" % chance.randrange(2, 8)
        store.networks.put_endpoint(
            EndpointRecord(record.id, hex_id("net n"), address, None, "m", [], "eth0", 0, False)
        )
        port = 8000 + chance.randrange(5)
        store.networks.put_ports(record.id, [PortRecord(record.id, chance.choice(["", "127.0.0.1"]), port, "tcp", 80)])


def _image_id(store: Store, image: str) -> str:
    found = store.images.by_reference("ref:" + image)
    if found is None:
        raise NotFound("no image")
    return found.id
