#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: network
version_added: 0.1.0
short_description: Manage networks
description:
  - Create, change and remove networks that containers are connected to.
  - Containers on the same network reach each other by name; the engine answers their DNS questions.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.STATE
  - wharf.engine._engine

options:
  name:
    description: Name of the network. The network V(bridge) always exists and cannot be changed.
    type: str
    required: true
    aliases: [network_name]
  state:
    description:
      - With V(present) the network exists as described.
      - With V(absent) it does not.
    type: str
    choices: [absent, present]
    default: present
  driver:
    description:
      - How the network is made.
      - Changing it replaces the network.
    type: str
    choices: [bridge]
    default: bridge
  driver_options:
    description:
      - Options of the O(driver), by Docker's names. Unknown ones are refused.
      - Changing them replaces the network.
    type: dict
  ipam_config:
    description:
      - The network's subnets. Without it, the engine takes a free subnet from private address space.
      - Changing it replaces the network.
    type: list
    elements: dict
    suboptions:
      subnet:
        description: The subnet in CIDR notation.
        type: str
      iprange:
        description: The part of the subnet that containers get addresses from, in CIDR notation.
        type: str
        aliases: [ip_range]
      gateway:
        description: The host's address in the subnet. The first one, unless given.
        type: str
      aux_addresses:
        description: Addresses that no container may get, by a name of your choice.
        type: dict
  enable_ipv6:
    description:
      - Give the network an IPv6 subnet, too.
      - Changing it replaces the network.
    type: bool
  internal:
    description:
      - Whether the network is cut off from everything outside the host.
      - Changing it replaces the network.
    type: bool
  attachable:
    description:
      - Kept and returned for compatibility with Docker; every container can be connected to every network.
      - Changed on the existing network.
    type: bool
  labels:
    description:
      - Labels of the network. Labels not listed are removed.
      - Changed on the existing network.
    type: dict
  force:
    description:
      - With O(state=present), make the network anew even if nothing differs.
      - With O(state=absent), disconnect its containers first. Without it, the task fails while there are any.
    type: bool
    default: false
seealso:
  - module: wharf.engine.network_info
  - module: wharf.engine.container
"""

EXAMPLES = r"""
---
- name: A network for the shop
  wharf.engine.network:
    name: shop

- name: A network with addresses of our choice and no way out
  wharf.engine.network:
    name: backend
    internal: true
    ipam_config:
      - subnet: 10.89.0.0/24
        gateway: 10.89.0.1
        iprange: 10.89.0.128/25
        aux_addresses:
          printer: 10.89.0.200

- name: Remove it, whoever is connected
  wharf.engine.network:
    name: backend
    state: absent
    force: true
"""

RETURN = r"""
---
network:
  description: The network in the shape of C(docker network inspect). V(null) when there is none.
  returned: success
  type: dict
  sample:
    Attachable: false
    ConfigFrom: {"Network": ""}
    ConfigOnly: false
    Containers: {}
    Created: "2026-11-24T03:40:00.123456789Z"
    Driver: bridge
    EnableIPv4: true
    EnableIPv6: false
    IPAM:
      Config:
        - Gateway: 172.18.0.1
          Subnet: 172.18.0.0/16
      Driver: default
      Options: {}
    Id: 5ad6b8d5b2c4e1f0a3b4c5d6e7f80912a3b4c5d6e7f80912a3b4c5d6e7f80912
    Ingress: false
    Internal: false
    Labels: {}
    Name: shop
    Options: {}
    Scope: local
actions:
  description:
    - What was done, or in check mode what would be done, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    how:
      description:
        - How the difference is made good. V(create), V(remove), V(replace), V(live) (the existing object is changed),
          V(start), V(stop), V(pull), V(import), V(untag) or V(disconnect).
      type: str
      sample: live
    kind:
      description: What kind of object.
      type: str
      sample: container
    name:
      description: Which one.
      type: str
      sample: web
    why:
      description:
        - The reason, in a few words. V(asked) means that the task asks for something else than last time, V(drift)
          that it does not, and the host has something else.
      type: str
      sample: asked
    detail:
      description: More about it, such as the option with its values before and after.
      type: dict
      sample: {"option": "memory", "before": 67108864, "after": 134217728}
error:
  description:
    - What went wrong, for playbooks to act on. RV(msg) says it in a sentence.
  returned: failure
  type: dict
  contains:
    kind:
      description:
        - The kind of failure, one of a fixed set, such as V(usage), V(not_found), V(conflict), V(in_use), V(kernel),
          V(disk_full), V(start), V(unhealthy), V(registry), V(auth), V(integrity), V(timeout), V(internal).
      type: str
      sample: conflict
    step:
      description: The step of the engine that failed.
      type: str
      sample: publish_port
    subject:
      description: The object it happened to.
      type: str
      sample: container web
    path:
      description: The option, file or reference at fault.
      type: str
      sample: published_ports[0]
    errno:
      description: The kernel's error number, if it was the kernel that refused.
      type: int
      sample: 98
    hint:
      description: What can be done about it.
      type: str
      sample: Choose another host port.
msg:
  description: What went wrong, on what, and why, in a sentence.
  returned: failure
  type: str
  sample: "published_ports[0]: 127.0.0.1:8080/tcp is in use by container web"
"""

from ansible_collections.wharf.engine.plugins.module_utils._args import network
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run("network", network.CONFIG, network.OPERATION)


if __name__ == "__main__":
    main()
