#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: volume_info
version_added: 0.1.0
short_description: Look at volumes
description:
  - Return one volume, or all.
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
    description: Name of the volume. Without it, all volumes are returned.
    type: str
  size:
    description:
      - Whether to add C(UsageData) with C(RefCount), how many containers use the volume, and C(Size), the bytes of disk
        that it takes. Takes longer, the more files there are.
    type: bool
    default: false
  filters:
    description:
      - List only the volumes that C(docker volume ls --filter) would list. Several filters must all match; of several
        values of one filter one must, but of C(label) all.
      - C(name) is a regular expression or a whole value; C(driver) is V(local); C(dangling) is V(true) for volumes that
        no container uses; C(label) is C(key) or C(key=value), or a dictionary.
      - Filters with other names are refused.
      - Mutually exclusive with O(name).
    type: dict
seealso:
  - module: wharf.engine.volume
"""

EXAMPLES = r"""
---
- name: Look at one volume
  wharf.engine.volume_info:
    name: data
  register: data

- name: Show where it lies
  ansible.builtin.debug:
    msg: "{{ data.volume.Mountpoint if data.exists else 'There is no such volume' }}"

- name: Names of all volumes that belong to the shop
  wharf.engine.volume_info:
    query: "[?Labels.app == 'shop'].Name"

- name: What volumes that nobody uses take
  wharf.engine.volume_info:
    size: true
    filters:
      dangling: true
    query: "[].{name: Name, bytes: UsageData.Size}"

- name: Where the data of the shop is
  wharf.engine.volume_info:
    filters:
      label:
        app: shop
    format: !unsafe "{{ .Mountpoint }}"
"""

RETURN = r"""
---
exists:
  description: Whether there is a volume called O(name).
  returned: when O(name) is given
  type: bool
  sample: true
volume:
  description:
    - The volume in the shape of C(docker volume inspect), or what O(query) or O(format) made of it. V(null) when there
      is none.
  returned: when O(name) is given
  type: raw
  sample:
    CreatedAt: "2026-11-24T03:40:00.123456789Z"
    Driver: local
    Labels: {app: shop}
    Mountpoint: /var/lib/wharf/volumes/data/_data
    Name: data
    Options: {}
    Scope: local
volumes:
  description: All volumes, in the shape of RV(volume), or what O(query) or O(format) made of the list.
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

from ansible_collections.wharf.engine.plugins.module_utils._args import volume
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run("volume_info", volume.INFO, mutually_exclusive=[["query", "format"], ["name", "filters"]])


if __name__ == "__main__":
    main()
