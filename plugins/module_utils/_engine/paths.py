# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where things are. One object, passed down; nobody else joins these names."""

from __future__ import annotations

import os

DEFAULT_STATE = "/var/lib/wharf"
DEFAULT_RUN = "/run/wharf"


def _tag(state: str) -> str:
    import hashlib  # it brings libcrypto along: 2 ms and 0.4 MB that the default instance does without

    return hashlib.sha256(os.fsencode(state)).hexdigest()[:8]


class Paths:
    """The state directory (kept) and the run directory (empty after boot) of one engine instance.

    Several instances can live on one host (tests do). ``tag`` is "" for the default instance and 8 hex digits
    otherwise; whatever an instance creates outside its two directories (nft tables, cgroups) carries the tag, so
    that one never cleans up what belongs to another.
    """

    __slots__ = ("run", "state", "tag")

    def __init__(self, state: str = DEFAULT_STATE, run: str = DEFAULT_RUN) -> None:
        self.state = os.path.abspath(state)
        self.run = os.path.abspath(run)
        default = self.state == DEFAULT_STATE
        self.tag = "" if default else _tag(self.state)

    def __repr__(self) -> str:
        return "Paths(%r, %r)" % (self.state, self.run)

    @property
    def database(self) -> str:
        return self.state + "/state.db"

    @property
    def blobs(self) -> str:
        return self.state + "/blobs/sha256"

    @property
    def layers(self) -> str:
        return self.state + "/layers"

    @property
    def containers(self) -> str:
        return self.state + "/containers"

    @property
    def volumes(self) -> str:
        return self.state + "/volumes"

    @property
    def tmp(self) -> str:
        """Half-done things. Each entry is held by a ``flock`` while in use; what can be locked is litter."""
        return self.state + "/tmp"

    @property
    def locks(self) -> str:
        return self.state + "/locks"

    @property
    def engine(self) -> str:
        return self.state + "/engine"

    @property
    def auth(self) -> str:
        return self.state + "/auth.json"

    @property
    def mirrors(self) -> str:
        return self.state + "/mirrors.json"

    @property
    def events(self) -> str:
        """Where monitors write down what they see (``store.journal``)."""
        return self.run + "/events"

    @property
    def netns(self) -> str:
        return self.run + "/netns"

    @property
    def spawner_socket(self) -> str:
        return self.run + "/spawner.sock"

    @property
    def resolver_socket(self) -> str:
        return self.run + "/resolver.sock"

    @property
    def cgroup(self) -> str:
        """Name of our cgroup below each hierarchy's root (or below the delegated cgroup under systemd)."""
        return "wharf-" + self.tag if self.tag else "wharf"

    @property
    def nft_table(self) -> str:
        return "wharf_" + self.tag if self.tag else "wharf"

    def container(self, container_id: str) -> str:
        """Kept across reboots: ``config.json run.json state.json log upper/ work/ files/``."""
        return "%s/%s" % (self.containers, container_id)

    def container_run(self, container_id: str) -> str:
        """Gone at reboot: FIFOs, monitor socket."""
        return "%s/containers/%s" % (self.run, container_id)

    def container_netns(self, container_id: str) -> str:
        return "%s/%s" % (self.netns, container_id)

    def volume(self, name: str) -> str:
        return "%s/%s" % (self.volumes, name)

    def volume_data(self, name: str) -> str:
        return "%s/%s/_data" % (self.volumes, name)

    def layer(self, chain_id: str) -> str:
        """Directory of a committed layer; ``chain_id`` is ``sha256:<hex>``."""
        return "%s/%s" % (self.layers, chain_id.partition(":")[2])

    def ensure(self) -> None:
        """Create both directories. 0710/0700: a host user must not reach a set-id file in an image (CVE-2021-41091)."""
        for path, mode in (
            (self.state, 0o710),
            (self.blobs, 0o700),
            (self.layers, 0o700),
            (self.containers, 0o700),
            (self.volumes, 0o711),
            (self.tmp, 0o700),
            (self.locks, 0o700),
            (self.engine, 0o700),
            (self.run, 0o711),
            (self.netns, 0o711),
            (self.run + "/containers", 0o700),
        ):
            if not os.path.isdir(path):
                os.makedirs(path, mode=0o700, exist_ok=True)
                os.chmod(path, mode)
