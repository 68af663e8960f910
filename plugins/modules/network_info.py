#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: network_info
version_added: 0.1.0
short_description: Look at networks
description:
  - Return one network, or all.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.INFO
  - wharf.engine._engine
  - wharf.engine._engine.QUERY
  - wharf.engine._engine.FORMAT

options:
  name:
    description: Name or ID of the network. Without it, all networks are returned.
    type: str
  filters:
    description:
      - List only the networks that C(docker network ls --filter) would list. Several filters must all match; of several
        values of one filter one must, but of C(label) all.
      - C(name) and C(id) are regular expressions or whole values; C(driver) is a driver; C(scope) is V(local); C(type)
        is V(custom) or V(builtin); C(dangling) is V(true) for networks without containers; C(label) is C(key) or
        C(key=value), or a dictionary.
      - Filters with other names are refused.
      - Mutually exclusive with O(name).
    type: dict
seealso:
  - module: wharf.engine.network
"""

EXAMPLES = r"""
---
- name: Look at one network
  wharf.engine.network_info:
    name: shop
  register: shop

- name: Who is connected
  ansible.builtin.debug:
    msg: "{{ shop.network.Containers | dict2items | map(attribute='value.Name') }}"
  when: shop.exists

- name: All subnets
  wharf.engine.network_info:
    query: "[].IPAM.Config[].Subnet"

- name: Subnets of the networks that no container is in
  wharf.engine.network_info:
    filters:
      dangling: true
    format: !unsafe "{{ .Name }}: {{ range .IPAM.Config }}{{ .Subnet }} {{ end }}"
"""

RETURN = r"""
---
exists:
  description: Whether there is a network called O(name).
  returned: when O(name) is given
  type: bool
  sample: true
network:
  description:
    - The network in the shape of C(docker network inspect), or what O(query) or O(format) made of it. V(null) when
      there is none.
  returned: when O(name) is given
  type: raw
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
networks:
  description: All networks, in the shape of RV(network), or what O(query) or O(format) made of the list.
  returned: when O(name) is not given
  type: raw
  sample: []
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
    run("network_info", network.INFO, mutually_exclusive=[["query", "format"], ["name", "filters"]])


if __name__ == "__main__":
    main()
