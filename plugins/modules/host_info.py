#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_info
version_added: 0.1.0
short_description: Look at what the engine finds on a host
description:
  - Return what the kernel of the target offers to containers, which of the engine's ways of doing things are in use
    there and why, and how much the engine holds.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.INFO
  - wharf.engine._engine
  - wharf.engine._engine.QUERY

options:
  disk_usage:
    description:
      - Whether to measure what images, containers and volumes take, and how much of that nothing needs, as
        C(disk_usage). Takes its time on hosts with much data.
    type: bool
    default: false
seealso:
  - name: The host role
    description: Prepares a host and reports the same facts.
    link: https://github.com/wharf-engine/wharf.engine/tree/main/roles/host
"""

EXAMPLES = r"""
---
- name: What this host can do
  wharf.engine.host_info:
  register: host

- name: How much a prune would give back
  wharf.engine.host_info:
    disk_usage: true
    query: disk_usage.images.reclaimable

- name: Only the cgroup layout
  wharf.engine.host_info:
    query: cgroups
"""

RETURN = r"""
---
host:
  description: Facts about the host, or what O(query) made of them.
  returned: success
  type: raw
  sample:
    supported: true
    problems: []
    fallbacks: ["Layers are extracted: this kernel cannot mount EROFS images from files (Linux 6.12)"]
    engine: {version: 0.1.0, state_dir: /var/lib/wharf, run_dir: /run/wharf}
    kernel: {release: 6.1.0-26-amd64, machine: x86_64}
    python: {version: 3.11.2, executable: /usr/bin/python3.11}
    cgroups:
      kind: v2
      controllers: {cpu: v2, cpuset: v2, io: v2, memory: v2, pids: v2}
    storage: {overlay: true, overlay_mode: string, erofs_files: false, idmapped_layers: true, project_quotas: false}
    network: {ip_forward: true, ipv6: true, nftables: true}
    security: {seccomp: true, apparmor: true, selinux: false, user_namespaces: true, missing_capabilities: []}
    init_system: systemd
    objects: {images: 2, containers: 3, networks: 2, volumes: 1}
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

from ansible_collections.wharf.engine.plugins.module_utils._args import host
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run("host_info", host.INFO)


if __name__ == "__main__":
    main()
