#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: volume
version_added: 0.1.0
short_description: Manage volumes
description:
  - Create, relabel and remove named volumes, directories that outlive the containers that use them.
  - A volume's data is never deleted to change the volume. It goes only with O(state=absent).
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.STATE
  - wharf.engine._engine

options:
  name:
    description: Name of the volume.
    type: str
    required: true
    aliases: [volume_name]
  state:
    description:
      - With V(present) the volume exists with the O(labels) given.
      - With V(absent) it does not, and its data is gone. A volume in use is not removed; the task fails.
    type: str
    choices: [absent, present]
    default: present
  driver:
    description: Where the data is kept.
    type: str
    choices: [local]
    default: local
  labels:
    description:
      - Labels of the volume. Labels not listed are removed.
      - Changed on the existing volume.
    type: dict
seealso:
  - module: wharf.engine.volume_info
  - module: wharf.engine.container
"""

EXAMPLES = r"""
---
- name: A volume for the database
  wharf.engine.volume:
    name: data
    labels:
      app: shop

- name: Remove a volume with everything in it
  wharf.engine.volume:
    name: scratch
    state: absent
"""

RETURN = r"""
---
volume:
  description:
    - The volume in the shape of C(docker volume inspect). V(null) when there is none.
  returned: success
  type: dict
  sample:
    CreatedAt: "2026-11-24T03:40:00.123456789Z"
    Driver: local
    Labels: {app: shop}
    Mountpoint: /var/lib/wharf/volumes/data/_data
    Name: data
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

from ansible_collections.wharf.engine.plugins.module_utils._args import volume
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run("volume", volume.CONFIG, volume.OPERATION)


if __name__ == "__main__":
    main()
