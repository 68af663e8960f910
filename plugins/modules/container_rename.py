#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_rename
version_added: 0.1.0
short_description: Give a container another name
description:
  - Give a container another name. A running one goes on running, and is found by its new name on its networks at once.
  - When nothing is called O(container) but something is called O(name), it has been renamed already and nothing
    changes.
  - A container whose name others use to share a namespace or as a link is not renamed, since they would not find it at
    their next start.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.STATE
  - wharf.engine._engine

options:
  container:
    description: Present name, or ID, of the container.
    type: str
    required: true
  name:
    description: The name it is to have.
    type: str
    required: true
    aliases: [new_name]
seealso:
  - module: wharf.engine.container
"""

EXAMPLES = r"""
---
- name: Keep the old one under another name
  wharf.engine.container_rename:
    container: web
    name: web-2025
"""

RETURN = r"""
---
name:
  description: The name the container has now, or would have.
  returned: success
  type: str
  sample: web-2025
id:
  description: The container's ID.
  returned: success
  type: str
  sample: 2f1e0d9c8b7a695847362514f3e2d1c0b9a8978685746352413f2e1d0c9b8a79
actions:
  description:
    - What was done, or in check mode what would be done, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    how:
      description:
        - How the difference is made good, here V(rename).
      type: str
      sample: rename
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
      sample: {"name": "web-2025"}
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
    run("container_rename", around.RENAME)


if __name__ == "__main__":
    main()
