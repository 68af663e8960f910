# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A "host" of its own for every test: the test's thread moves into a fresh network namespace, so that the machine gets
no link, no sysctl and no table, and moves back afterwards."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional

import pytest
from module_utils._engine.kernel.netlink import Netlink
from module_utils._engine.kernel.netns import inside
from module_utils._engine.kernel.syscalls import CLONE_NEWNET, MNT_DETACH, Kernel
from module_utils._engine.network import sandbox
from module_utils._engine.network.service import NetworkService
from module_utils._engine.paths import Paths
from module_utils._engine.store.records import ContainerRecord
from module_utils._engine.store.state import Store

KERNEL = Kernel()


class Host:
    """An engine instance on a private host with an uplink ``up0`` (192.0.2.1/24, MTU 1400, default route)."""

    def __init__(self, directory: str) -> None:
        self.paths = Paths(directory + "/s", directory + "/r")
        self.store = Store.open(self.paths)
        self.service = NetworkService(self.paths, self.store, KERNEL)
        self.netlink = Netlink()
        self.netlink.set_link(1, up=True)
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):  # inherited from the machine
            sandbox.write_sysctl(name, "0")
        self.netlink.add_link("up0", "bridge", mtu=1400)
        uplink = self.netlink.link("up0")
        assert uplink is not None
        self.netlink.add_address(uplink.ifindex, "192.0.2.1", 24)
        self.netlink.set_link(uplink.ifindex, up=True)
        self.netlink.add_route("", 0, gateway="192.0.2.254")

    def close(self) -> None:
        self.service.close()
        self.netlink.close()
        self.store.close()

    def container(self, name: str, *networks: Any, **spec: Any) -> str:
        """A container's row and leases. ``networks``: names, or dicts."""
        cid = secrets.token_hex(32)
        self.store.containers.create(ContainerRecord(cid, name, "sha256:0", "x", spec, "running", time.time(), {}, 0))
        wanted = [network if isinstance(network, dict) else {"name": network} for network in networks]
        self.service.plan_endpoints(cid, wanted)
        return cid

    def started(self, name: str, *networks: Any, **spec: Any) -> str:
        cid = self.container(name, *networks, **spec)
        self.service.start(cid)
        return cid

    def address(self, cid: str, number: int = 0, v6: bool = False) -> str:
        endpoint = self.store.networks.endpoints(container_id=cid)[number]
        found = endpoint.ipv6 if v6 else endpoint.ipv4
        assert found
        return found

    def within(self, cid: str, action: Callable[[], Any]) -> Any:
        fd = os.open(self.paths.container_netns(cid), os.O_RDONLY)
        try:
            with inside(fd):
                return action()
        finally:
            os.close(fd)

    def links(self) -> list[str]:
        return sorted(link.name for link in self.netlink.links() if link.name.startswith("wh"))

    def listen(self, cid: Optional[str], port: int, family: int = socket.AF_INET) -> socket.socket:
        def make() -> socket.socket:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("::" if family == socket.AF_INET6 else "", port))
            sock.listen(8)
            return sock

        made: socket.socket = self.within(cid, make) if cid else make()
        return made

    def reaches(self, cid: Optional[str], address: str, port: int, timeout: float = 1.0) -> bool:
        """Whether a TCP connection from the container (None: the host) is accepted."""

        def make() -> socket.socket:
            return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)

        with self.within(cid, make) if cid else make() as sock:
            sock.settimeout(timeout)
            try:
                sock.connect((address, port))
            except OSError:
                return False
            return True


@contextlib.contextmanager
def private_network() -> Iterator[None]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        KERNEL.unshare(CLONE_NEWNET)
        yield
    finally:
        KERNEL.setns(home, CLONE_NEWNET)
        os.close(home)


@pytest.fixture
def privately() -> Iterator[None]:
    with private_network():
        yield


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Without the resolver process: see ``test_network_end_to_end`` for that."""
    monkeypatch.setattr(NetworkService, "_register", lambda *_args: None)
    monkeypatch.setattr(NetworkService, "_missing_names", lambda *_args: [])
    directory = tempfile.mkdtemp(prefix="wt", dir="/run")
    try:
        with private_network():
            made = Host(directory)
            try:
                yield made
            finally:
                made.close()
    finally:
        for name in os.listdir(directory + "/r/netns"):
            with contextlib.suppress(OSError):
                KERNEL.umount2("%s/r/netns/%s" % (directory, name), MNT_DETACH)
        shutil.rmtree(directory)
