# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's machines: which Debian each is made of, and what is special about it."""

from __future__ import annotations

from typing import NamedTuple

_BASE = (
    "apparmor", "busybox-static", "dbus", "e2fsprogs", "iproute2", "iputils-ping", "kmod", "libpam-systemd",
    "linux-image-cloud-amd64", "openssh-server", "procps", "python3", "sudo", "systemd-sysv", "udev",
)  # fmt: skip


class Machine(NamedTuple):
    """``number``: the last byte of its address on the lab's network (10.77.0.NUMBER), and part of its ports.
    ``sources``: an apt line, where the mirror's security archive no longer has what it lists."""

    name: str
    suite: str
    number: int
    extra: tuple[str, ...] = ()
    sources: str = ""

    @property
    def packages(self) -> list[str]:
        return sorted({*_BASE, *self.extra})

    @property
    def ssh_port(self) -> int:
        return 42200 + self.number

    @property
    def web_port(self) -> int:
        """See ``Guest.web``."""
        return 42300 + self.number

    @property
    def address(self) -> str:
        return "10.77.0.%d" % self.number

    @property
    def arguments(self) -> str:
        """More of them for the kernel."""
        return "ipv6.disable=1" if self.name == "bare" else ""


MACHINES = {
    machine.name: machine
    for machine in (
        Machine("debian13", "trixie", 13, ("nftables",)),
        Machine("debian12", "bookworm", 12),  # without nft: the engine does not need it
        Machine("debian11", "bullseye", 11, ("nftables",), "deb http://deb.debian.org/debian bullseye main"),
        Machine("debian13b", "trixie", 14, ("nftables",)),
        Machine("crowded", "bookworm", 16, ("docker.io", "firewalld", "iptables", "nftables", "ufw")),
        Machine("bare", "trixie", 17),  # no nft, and no IPv6
        Machine("debian12b", "bookworm", 15, ("docker-registry", "openssl")),  # openssl: the registry's certificate
    )
}
