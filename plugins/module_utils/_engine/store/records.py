# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the store holds, as immutable tuples. Times are seconds since the epoch (float), sizes are bytes.

A digest is always ``sha256:<64 hex>``; container and network ids are 64 hex digits.
"""

from __future__ import annotations

from typing import Any, Optional

from ..tuples import NamedTuple


class LayerRef(NamedTuple):
    """One layer as an image names it. ``blob_digest`` is that of the (compressed) blob it came from, or ""."""

    diff_id: str
    chain_id: str
    blob_digest: str
    blob_size: int
    media_type: str


class ImageRecord(NamedTuple):
    """``id`` is the config's digest, ``config`` the parsed OCI image config, ``size`` that of the unpacked layers."""

    id: str
    manifest_digest: str
    manifest_type: str
    config: dict[str, Any]
    size: int
    created_at: float
    layers: tuple[LayerRef, ...]


class LayerRecord(NamedTuple):
    """A layer directory below ``paths.layers``. ``parent`` is a chain id or "", ``form`` "erofs" or "tree"."""

    chain_id: str
    diff_id: str
    parent: str
    form: str
    size: int


class ContainerRecord(NamedTuple):
    """``spec`` is what was asked, normalised; ``resolved`` what the engine chose (``{"volumes": [names], ...}``);
    ``desired`` is "created", "running" or "stopped"."""

    id: str
    name: str
    image_id: str
    image_ref: str
    spec: dict[str, Any]
    desired: str
    created_at: float
    resolved: dict[str, Any]
    generation: int


class NetworkRecord(NamedTuple):
    """``subnets`` is a list of ``{"subnet", "gateway", "ip_range", "aux": {}}``, IPv4 and IPv6."""

    id: str
    name: str
    driver: str
    spec: dict[str, Any]
    subnets: list[dict[str, Any]]
    created_at: float


class EndpointRecord(NamedTuple):
    """A container's place in a network, and its leases. Addresses are without prefix length."""

    container_id: str
    network_id: str
    ipv4: Optional[str]
    ipv6: Optional[str]
    mac: str
    aliases: list[str]
    ifname: str
    position: int
    static: bool
    priority: int = 0  # for the default route; the highest wins


class PortRecord(NamedTuple):
    """A published port. ``host_ip`` "" means any address of both families."""

    container_id: str
    host_ip: str
    host_port: int
    protocol: str
    container_port: int


class VolumeRecord(NamedTuple):
    name: str
    driver: str
    labels: dict[str, str]
    anonymous: bool
    spec: dict[str, Any]
    created_at: float


class EventRecord(NamedTuple):
    seq: int
    time: float
    type: str
    action: str
    actor: str
    attributes: dict[str, Any]
    origin: str = ""  # of what a monitor saw: its line in the journal
