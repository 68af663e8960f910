# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Networks, the places containers have in them (with their leases), and published ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Dict, List, Optional

from ..errors import Conflict, InUse, NotFound, UsageError
from .db import Database, Row, damaged, dumps, loads, readable
from .records import EndpointRecord, NetworkRecord, PortRecord

_COLUMNS = "id, name, driver, spec, subnets, created_at"
_ENDPOINT = "container_id, network_id, ipv4, ipv6, mac, aliases, ifname, position, static, priority"
_PORT = "container_id, host_ip, host_port, protocol, container_port"
_UPDATABLE = frozenset(("driver", "name", "spec", "subnets"))
_JSON = frozenset(("spec", "subnets"))


class Networks:
    def __init__(self, db: Database) -> None:
        self._db = db
        # Only during Store.looking: networks by id, a container's endpoints and ports by its id.
        self._seen: Optional[tuple[Dict[str, NetworkRecord], Dict[str, List[EndpointRecord]], Dict[str, Any]]] = None

    def look(self) -> None:
        """See ``Store.looking``. Absent from what is seen: damaged, or not there; then the database is asked."""
        networks = {record.id: record for record in self.list()}
        places: Dict[str, List[EndpointRecord]] = {}
        for record in self.endpoints():
            places.setdefault(record.container_id, []).append(record)
        ports: Dict[str, List[PortRecord]] = {}
        for port in self.ports():
            ports.setdefault(port.container_id, []).append(port)
        self._seen = networks, places, ports

    def look_away(self) -> None:
        self._seen = None

    # -- networks --------------------------------------------------------------------------------------------

    def create(self, record: NetworkRecord) -> NetworkRecord:
        """Raises ``Conflict`` when the name is taken."""
        with self._db.transaction():
            owner = self.by_name(record.name)
            if owner is not None:
                raise _taken(record.name, owner.id)
            self._db.execute("INSERT INTO networks VALUES (?, ?, ?, ?, ?, ?)", _row(record))
        return record

    def get(self, key: str) -> Optional[NetworkRecord]:
        """By full id, name, or an unambiguous beginning of the id. Raises ``Conflict`` when ambiguous."""
        if self._seen is not None and key in self._seen[0]:
            return self._seen[0][key]
        rows = self._db.execute("SELECT %s FROM networks WHERE id = ? OR name = ?" % _COLUMNS, (key, key))
        if len(rows) > 1:
            rows = [row for row in rows if row[0] == key]
        if not rows and key and not key.strip("0123456789abcdef"):
            rows = self._db.execute(
                "SELECT %s FROM networks WHERE id >= ? AND id < ? LIMIT 2" % _COLUMNS, (key, key + "g")
            )
            if len(rows) > 1:
                raise Conflict("More than one network id begins with %s" % key, step="find_network", subject=key)
        return _record(rows[0]) if rows else None

    def by_name(self, name: str) -> Optional[NetworkRecord]:
        row = self._db.first("SELECT %s FROM networks WHERE name = ?" % _COLUMNS, (name,))
        return None if row is None else _record(row)

    def list(self) -> List[NetworkRecord]:
        return readable(self._db.execute("SELECT %s FROM networks ORDER BY name" % _COLUMNS), _record)

    def damaged(self) -> List[str]:
        rows = self._db.execute("SELECT %s FROM networks" % _COLUMNS)
        return damaged(rows, _record) + damaged(self._db.execute("SELECT %s FROM endpoints" % _ENDPOINT), _endpoint)

    def update(self, network_id: str, **fields: Any) -> NetworkRecord:
        """Change ``name driver spec subnets``. Returns the new record; raises ``NotFound``, ``Conflict``."""
        unknown = sorted(set(fields) - _UPDATABLE)
        if unknown:
            raise UsageError("Cannot update %s of a network" % ", ".join(unknown), step="update_network")
        with self._db.transaction():
            if fields:
                columns = ", ".join("%s = ?" % name for name in fields)
                values = [dumps(value) if name in _JSON else value for name, value in fields.items()]
                try:
                    self._db.execute("UPDATE networks SET %s WHERE id = ?" % columns, (*values, network_id))
                except Conflict:
                    raise _taken(str(fields.get("name")), "") from None
            row = self._db.first("SELECT %s FROM networks WHERE id = ?" % _COLUMNS, (network_id,))
        if row is None:
            raise NotFound("No such network: %s" % network_id, step="update_network", subject=network_id)
        return _record(row)

    def remove(self, network_id: str) -> bool:
        """Raises ``InUse`` while containers have a place in it. False if there was none."""
        try:
            return self._db.changed("DELETE FROM networks WHERE id = ?", (network_id,)) > 0
        except Conflict:
            rows = self._db.execute(
                "SELECT c.name FROM endpoints e JOIN containers c ON c.id = e.container_id"
                " WHERE e.network_id = ? ORDER BY c.name",
                (network_id,),
            )
            raise InUse(
                "Network %s has active endpoints: %s" % (network_id, ", ".join(row[0] for row in rows)),
                step="remove_network",
                subject=network_id,
                hint="Disconnect or remove these containers first.",
            ) from None

    # -- endpoints -------------------------------------------------------------------------------------------

    def endpoints(self, network_id: Optional[str] = None, container_id: Optional[str] = None) -> List[EndpointRecord]:
        """Ordered by container and position."""
        if self._seen is not None and network_id is None and container_id in self._seen[1]:
            return self._seen[1][container_id]
        rows = self._db.execute(
            "SELECT %s FROM endpoints WHERE (?1 IS NULL OR network_id = ?1) AND (?2 IS NULL OR container_id = ?2)"
            " ORDER BY container_id, position" % _ENDPOINT,
            (network_id, container_id),
        )
        return readable(rows, _endpoint)

    def put_endpoint(self, record: EndpointRecord) -> EndpointRecord:
        """Insert or replace the container's endpoint in that network. Raises ``Conflict`` "Address already in use"
        naming the owner, ``NotFound`` when container or network have no row."""
        row = (*record[:5], dumps(record.aliases), record.ifname, record.position, int(record.static), record.priority)
        with self._db.transaction():
            self._check_addresses(record)
            try:
                self._db.execute(
                    "INSERT INTO endpoints (%s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (container_id, network_id) DO UPDATE"
                    " SET ipv4 = excluded.ipv4, ipv6 = excluded.ipv6, mac = excluded.mac,"
                    " aliases = excluded.aliases, ifname = excluded.ifname, position = excluded.position,"
                    " static = excluded.static, priority = excluded.priority" % _ENDPOINT,
                    row,
                )
            except Conflict:
                raise NotFound(
                    "Container %s or network %s is not in the store" % (record.container_id, record.network_id),
                    step="put_endpoint",
                ) from None
        return record

    def _check_addresses(self, record: EndpointRecord) -> None:
        for column, address in (("ipv4", record.ipv4), ("ipv6", record.ipv6)):
            if address is None:
                continue
            row = self._db.first(
                "SELECT e.container_id, c.name FROM endpoints e LEFT JOIN containers c ON c.id = e.container_id"
                " WHERE e.network_id = ? AND e.%s = ? AND e.container_id != ?" % column,
                (record.network_id, address, record.container_id),
            )
            if row is not None:
                raise Conflict(
                    "Address already in use: %s belongs to container %s" % (address, row[1] or row[0]),
                    step="put_endpoint",
                    subject=address,
                )

    def remove_endpoint(self, container_id: str, network_id: str) -> bool:
        sql = "DELETE FROM endpoints WHERE container_id = ? AND network_id = ?"
        return self._db.changed(sql, (container_id, network_id)) > 0

    # -- ports -----------------------------------------------------------------------------------------------

    def ports(self, container_id: Optional[str] = None) -> List[PortRecord]:
        if self._seen is not None and container_id is not None:
            return list(self._seen[2].get(container_id, ()))
        rows = self._db.execute(
            "SELECT %s FROM ports WHERE (?1 IS NULL OR container_id = ?1)"
            " ORDER BY container_id, container_port, protocol, host_ip, host_port" % _PORT,
            (container_id,),
        )
        return [PortRecord(*row) for row in rows]

    def put_ports(self, container_id: str, ports: Sequence[PortRecord]) -> None:
        """Replace the container's published ports by ``ports``, all or none. Raises ``Conflict`` naming the owner when
        another container (or an earlier entry) has the same port and protocol on the same address, or either has it on
        any address; ``NotFound`` when the container has no row."""
        with self._db.transaction():
            self._db.execute("DELETE FROM ports WHERE container_id = ?", (container_id,))
            for port in ports:
                if not 0 < port.host_port < 65536:
                    raise UsageError("Cannot publish port %d" % port.host_port, step="put_ports")
                self._check_port(container_id, port)
                try:
                    self._db.execute("INSERT INTO ports (%s) VALUES (?, ?, ?, ?, ?)" % _PORT, (container_id, *port[1:]))
                except Conflict:
                    raise NotFound("No such container: %s" % container_id, step="put_ports") from None

    def port_owner(self, host_ip: str, host_port: int, protocol: str) -> Optional[PortRecord]:
        """The published port that ``host_ip:host_port`` would collide with."""
        rows = self._db.execute(
            "SELECT %s FROM ports WHERE host_port = ? AND protocol = ?" % _PORT, (host_port, protocol)
        )
        return next((PortRecord(*row) for row in rows if _overlap(row[1], host_ip)), None)

    def _check_port(self, container_id: str, port: PortRecord) -> None:
        other = self.port_owner(port.host_ip, port.host_port, port.protocol)
        if other is None:
            return
        where = "%s:%d/%s" % (port.host_ip or "0.0.0.0", port.host_port, port.protocol)
        if other.container_id == container_id:
            raise Conflict("Port %s is published twice" % where, step="put_ports", subject=where)
        row = self._db.first("SELECT name FROM containers WHERE id = ?", (other.container_id,))
        owner = row[0] if row else other.container_id
        raise Conflict(
            "Port %s is already allocated to container %s" % (where, owner),
            step="put_ports",
            subject=where,
            details={"owner": owner},
        )


def _overlap(one: str, two: str) -> bool:
    """Do two host addresses collide? "" is any of both families, ``0.0.0.0`` and ``::`` any of theirs."""
    if one == two or not one or not two:
        return True
    if (":" in one) != (":" in two):
        return False
    return one in ("0.0.0.0", "::") or two in ("0.0.0.0", "::")


def _row(record: NetworkRecord) -> Row:
    return (*record[:3], dumps(record.spec), dumps(record.subnets), record.created_at)


def _endpoint(row: Row) -> EndpointRecord:
    aliases = loads(row[5], "an endpoint of container %s" % row[0])
    return EndpointRecord(row[0], row[1], row[2], row[3], row[4], aliases, row[6], row[7], bool(row[8]), int(row[9]))


def _record(row: Row) -> NetworkRecord:
    subject = "network %s" % row[1]
    return NetworkRecord(row[0], row[1], row[2], loads(row[3], subject), loads(row[4], subject), row[5])


def _taken(name: str, owner: str) -> Conflict:
    return Conflict(
        "Network %s already exists%s" % (name, " (%s)" % owner if owner else ""),
        step="name_network",
        subject="network %s" % name,
    )
