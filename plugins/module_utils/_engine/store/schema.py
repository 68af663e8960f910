# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The database's schema as numbered migrations: ``PRAGMA user_version`` counts those that were applied.

A released migration is never changed; a new one is appended. Each runs in one transaction together with its number.
"""

from __future__ import annotations

from collections.abc import Sequence

_BASE = (
    """CREATE TABLE images (
        id TEXT PRIMARY KEY, manifest_digest TEXT NOT NULL, manifest_type TEXT NOT NULL, config TEXT NOT NULL,
        size INTEGER NOT NULL, created_at REAL NOT NULL, doomed INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID""",
    """CREATE TABLE layers (
        chain_id TEXT PRIMARY KEY, diff_id TEXT NOT NULL, parent TEXT NOT NULL, form TEXT NOT NULL,
        size INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE image_layers (
        image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE, position INTEGER NOT NULL,
        diff_id TEXT NOT NULL, chain_id TEXT NOT NULL REFERENCES layers(chain_id), blob_digest TEXT NOT NULL,
        blob_size INTEGER NOT NULL, media_type TEXT NOT NULL, PRIMARY KEY (image_id, position)) WITHOUT ROWID""",
    "CREATE INDEX image_layers_chain ON image_layers(chain_id)",
    """CREATE TABLE refs (
        reference TEXT PRIMARY KEY, image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE) WITHOUT ROWID""",
    "CREATE INDEX refs_image ON refs(image_id)",
    """CREATE TABLE repo_digests (
        repo_digest TEXT NOT NULL, image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
        PRIMARY KEY (repo_digest, image_id)) WITHOUT ROWID""",
    "CREATE INDEX repo_digests_image ON repo_digests(image_id)",
    """CREATE TABLE containers (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, image_id TEXT NOT NULL, image_ref TEXT NOT NULL,
        spec TEXT NOT NULL, desired TEXT NOT NULL, created_at REAL NOT NULL, resolved TEXT NOT NULL,
        generation INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX containers_image ON containers(image_id)",
    """CREATE TABLE networks (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, driver TEXT NOT NULL, spec TEXT NOT NULL,
        subnets TEXT NOT NULL, created_at REAL NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE endpoints (
        container_id TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
        network_id TEXT NOT NULL REFERENCES networks(id), ipv4 TEXT, ipv6 TEXT, mac TEXT NOT NULL,
        aliases TEXT NOT NULL, ifname TEXT NOT NULL, position INTEGER NOT NULL, static INTEGER NOT NULL,
        PRIMARY KEY (container_id, network_id), UNIQUE (network_id, ipv4), UNIQUE (network_id, ipv6)) WITHOUT ROWID""",
    """CREATE TABLE ports (
        container_id TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE, host_ip TEXT NOT NULL,
        host_port INTEGER NOT NULL, protocol TEXT NOT NULL, container_port INTEGER NOT NULL,
        PRIMARY KEY (host_port, protocol, host_ip)) WITHOUT ROWID""",
    "CREATE INDEX ports_container ON ports(container_id)",
    """CREATE TABLE volumes (
        name TEXT PRIMARY KEY, driver TEXT NOT NULL, labels TEXT NOT NULL, anonymous INTEGER NOT NULL,
        spec TEXT NOT NULL, created_at REAL NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, type TEXT NOT NULL, action TEXT NOT NULL,
        actor TEXT NOT NULL, attributes TEXT NOT NULL)""",
    "CREATE INDEX events_time ON events(time)",
)

# What an image task asked for as further references, by the reference it is about. No foreign keys: a wish outlives
# the image that fulfilled it.
_ASKED_TAGS = (
    "CREATE TABLE asked_tags (reference TEXT NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (reference, tag)) WITHOUT ROWID",
)

# Which line of a monitor's journal an event is, so that it is stored once; NULL for what tasks did themselves.
_EVENT_ORIGIN = (
    "ALTER TABLE events ADD COLUMN origin TEXT",
    "CREATE UNIQUE INDEX events_origin ON events(origin) WHERE origin IS NOT NULL",
)

# Which of a container's networks gives it the default route, before all rules.
_GATEWAY_PRIORITY = ("ALTER TABLE endpoints ADD COLUMN priority INTEGER NOT NULL DEFAULT 0",)

MIGRATIONS: list[Sequence[str]] = [_BASE, _ASKED_TAGS, _EVENT_ORIGIN, _GATEWAY_PRIORITY]
