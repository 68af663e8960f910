#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_pause
version_added: 0.1.0
short_description: Pause and unpause a container
description:
  - Let every process of a container stand still where it is, or go on, as C(docker pause) and C(docker unpause) do.
  - A container that does not run cannot be paused. It is not paused either, so that O(paused=false) has nothing to do.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.STATE
  - wharf.engine._engine

options:
  container:
    description: Name or ID of the container.
    type: str
    required: true
  paused:
    description: Whether it is to stand still.
    type: bool
    default: true
seealso:
  - module: wharf.engine.container
"""

EXAMPLES = r"""
---
- name: Hold the writer still while its volume is copied
  wharf.engine.container_pause:
    container: writer

- name: Let it go on
  wharf.engine.container_pause:
    container: writer
    paused: false
"""

RETURN = r"""
---
actions:
  description:
    - What was done, or in check mode what would be done, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    how:
      description:
        - How the difference is made good, here one of V(pause), V(unpause).
      type: str
      sample: pause
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
        - The reason, in a few words.
      type: str
      sample: ""
    detail:
      description: More about it.
      type: dict
      sample: {}
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

from ansible_collections.wharf.engine.plugins.module_utils._args import around
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run("container_pause", around.PAUSE)


if __name__ == "__main__":
    main()
