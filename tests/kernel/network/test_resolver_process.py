# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The resolver as a process: started on demand, killed, idle, replaced."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kernel.network.dnslab import addresses, ask
from kernel.network.netlab import Namespace
from module_utils._engine.network import dns
from module_utils._engine.network.dns_messages import Names
from module_utils._engine.network.resolver import Resolver, lock
from module_utils._engine.paths import Paths
from module_utils._engine.process import engine_command, spawn_daemon
from module_utils._engine.store.records import ContainerRecord, EndpointRecord, NetworkRecord
from module_utils._engine.store.state import Store

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def paths() -> Iterator[Paths]:
    run = tempfile.mkdtemp(prefix="wt", dir="/run")
    made = Paths(run + "/s", run + "/r")
    made.ensure()
    yield made
    wait_for(lambda: (dns.stop(made), free(made))[1])  # one that lost the race to start may come late
    shutil.rmtree(run)


def wait_for(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


def free(paths: Paths) -> bool:
    fd = lock(paths, 0)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def resolver_pid(paths: Paths) -> int:
    answer = dns._try(paths, {"do": "hello"})
    return int(answer["ok"]["pid"]) if answer else 0


def in_store(paths: Paths, namespace: Namespace) -> str:
    """A container of the store that answers to ``web`` and is itself reachable at ``path``."""
    ident, network = secrets.token_hex(32), secrets.token_hex(32)
    with Store.open(paths) as store:
        store.networks.create(NetworkRecord(network, "net", "bridge", {}, [{"subnet": "10.7.0.0/24"}], 0.0))
        store.containers.create(
            ContainerRecord(ident, "web", "sha256:" + "0" * 64, "i", {"name": "web"}, "running", 0.0, {}, 1)
        )
        store.networks.put_endpoint(
            EndpointRecord(ident, network, "10.7.0.2", None, "02:00:00:00:00:01", ["alias"], "eth0", 0, False)
        )
    open(paths.container_netns(ident), "w").close()
    return ident


def test_started_on_demand_killed_and_registered_again(paths: Paths) -> None:
    namespace = Namespace()
    try:
        ident = in_store(paths, namespace)
        member = dns.Member(ident, namespace.path)
        assert dns.members(paths) == [] and not dns.unregister(paths, ident), "asking starts nothing"
        assert not os.path.exists(paths.resolver_socket)
        assert dns.ensure(paths, [member]) == [ident]
        assert dns.ensure(paths, [member]) == []
        for name in ("web", "alias", ident[:12], "web.net"):
            assert addresses(ask(namespace, name)) == ["10.7.0.2"]
        assert addresses(ask(namespace, "2.0.7.10.in-addr.arpa", "PTR")) == ["web.net."]
        pid = resolver_pid(paths)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: free(paths))
        assert ask(namespace, "web", timeout=0.2) is None
        assert dns.missing(paths, [member]) == [member]
        assert dns.ensure(paths, [member]) == [ident]
        assert resolver_pid(paths) != pid
        assert addresses(ask(namespace, "web")) == ["10.7.0.2"]
        assert addresses(ask(namespace, "web", tcp=True)) == ["10.7.0.2"]
        assert dns.unregister(paths, ident)
        assert ask(namespace, "web", timeout=0.2) is None
        assert os.path.getsize(paths.run + "/resolver.log") == 0, open(paths.run + "/resolver.log").read()
    finally:
        namespace.close()


def test_many_at_once_start_one_resolver(paths: Paths) -> None:
    namespaces = [Namespace() for _n in range(6)]
    pids = []
    for n, namespace in enumerate(namespaces):
        pid = os.fork()
        if pid == 0:
            try:
                dns.register(paths, "c%d" % n, namespace.path)
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 6
    assert len(dns.members(paths)) == 6
    for namespace in namespaces:
        namespace.close()


def test_a_second_resolver_gives_up(paths: Paths) -> None:
    namespace = Namespace()
    dns.register(paths, "c", namespace.path)
    pid = resolver_pid(paths)
    spawn_daemon(engine_command("network.resolver", paths.state, paths.run), log=paths.run + "/resolver.log")
    time.sleep(1.5)
    assert resolver_pid(paths) == pid
    assert len(dns.members(paths)) == 1
    namespace.close()


def test_idle_means_the_end(paths: Paths) -> None:
    held = lock(paths, 0)
    resolver = Resolver(paths, Names())
    resolver.idle_seconds = 0.3
    thread = threading.Thread(target=resolver.serve, daemon=True)
    thread.start()
    wait_for(lambda: os.path.exists(paths.resolver_socket))
    namespace = Namespace()
    dns.register(paths, "c", namespace.path)
    time.sleep(0.6)
    assert thread.is_alive()
    assert dns.unregister(paths, "c")
    thread.join(3)
    assert not thread.is_alive()
    assert not os.path.exists(paths.resolver_socket)
    os.close(held)
    namespace.close()


def test_another_releases_resolver_hands_its_members_over(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Namespace(), Namespace()
    dns.register(paths, "first", first.path, ["192.0.2.53"])
    pid = resolver_pid(paths)
    monkeypatch.setattr(dns, "PACKAGE", "/another/engine")
    dns.ensure(paths, [dns.Member("second", second.path)])
    assert resolver_pid(paths) != pid
    assert sorted(dns.members(paths)) == [
        dns.Member("first", first.path, ("192.0.2.53",)),
        dns.Member("second", second.path),
    ]
    for namespace in (first, second):
        namespace.close()


def test_the_resolver_stays_small(paths: Paths) -> None:
    namespace = Namespace()
    ident = in_store(paths, namespace)
    dns.register(paths, ident, namespace.path)
    assert addresses(ask(namespace, "web")) == ["10.7.0.2"]
    with open("/proc/%d/smaps_rollup" % resolver_pid(paths)) as file:
        rollup = dict(line.split()[:2] for line in file.readlines()[1:])
    assert int(rollup["Pss:"]) < 16000, "KiB"
    namespace.close()
