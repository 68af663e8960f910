#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: events_info
version_added: 0.1.0
short_description: Look at what happened
description:
  - Return what happened to containers, images, networks and volumes, oldest first, in the shape of C(docker events).
  - That is what tasks did, such as C(create), C(start), C(stop), C(destroy), C(pull) and C(tag), and what containers
    did while no task ran, such as C(die) with its C(exitCode), C(oom), C(health_status) and the C(start) after an
    automatic restart.
  - The newest 10,000 are kept. What containers did since the last task is kept in O(run_dir) until the next task, so it
    does not survive a reboot.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.INFO
  - wharf.engine._engine
  - wharf.engine._engine.QUERY
  - wharf.engine._engine.FORMAT

options:
  since:
    description:
      - Only what happened at this time or later. Seconds since the epoch, a time such as V(2026-11-24T02:00:00Z), or a
        duration back from now such as V(10m).
    type: str
  until:
    description: Only what happened at this time or before, written as O(since).
    type: str
  filters:
    description:
      - Only events that C(docker events --filter) would show. Several filters must all match; of several values of one
        filter one must, but of C(label) all.
      - C(type) is V(container), V(image), V(network) or V(volume); C(event) is an action; C(container), C(network) and
        C(volume) are the beginning of a name or ID; C(image) is a name or ID, also of what containers run; C(label) is
        C(key) or C(key=value), or a dictionary; C(scope) is V(local).
      - Filters with other names are refused.
    type: dict
  limit:
    description: Only the newest so many of what is left.
    type: int
seealso:
  - module: wharf.engine.container_info
  - module: wharf.engine.container_logs
"""

EXAMPLES = r"""
---
- name: Containers that ended in the last hour, and how
  wharf.engine.events_info:
    since: 1h
    filters:
      event: die
    query: "[].[Actor.Attributes.name, Actor.Attributes.exitCode]"
  register: ended

- name: What the shop's health checks said
  wharf.engine.events_info:
    filters:
      label: app=shop
      event: health_status
    format: !unsafe "{{ .Actor.Attributes.name }} {{ .Action }}"

- name: The last ten things that happened
  wharf.engine.events_info:
    limit: 10
"""

RETURN = r"""
---
events:
  description:
    - The events, oldest first, or what O(query) made of the list or O(format) of each.
    - C(exec_create) and its relatives do not tell the command, which may hold a password. Health checks are told when
      their result changes, not each time they run.
  returned: success
  type: raw
  sample:
    - status: die
      id: 3f1c2b4a59687786a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f00f1e
      from: nginx:1.29
      Type: container
      Action: die
      Actor:
        ID: 3f1c2b4a59687786a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f00f1e
        Attributes: {image: "nginx:1.29", name: web, exitCode: "137", execDuration: "42", app: shop}
      scope: local
      time: 1795485693
      timeNano: 1795485693640214176
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

from ansible_collections.wharf.engine.plugins.module_utils._args import events
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run("events_info", events.INFO, mutually_exclusive=[["query", "format"]])


if __name__ == "__main__":
    main()
