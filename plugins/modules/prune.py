#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: prune
version_added: 0.1.0
short_description: Remove what nothing needs any more
description:
  - Remove containers that do not run, images, networks and volumes that no container uses.
  - In check mode the lists of what would go are returned, and the bytes it weighs.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.STATE
  - wharf.engine._engine

options:
  containers:
    description:
      - Whether to remove containers that do not run. Their volumes stay, but O(volumes=true) takes the anonymous ones
        in the same task.
    type: bool
    default: false
  containers_filters:
    description:
      - Which of them. V(until) takes a time (RFC 3339, or seconds since the epoch) or a duration back from now (such as
        V(24h)), and those made before it match. V(label) and V(label!) take a C(key) or C(key=value), or a list of
        these, and those that have them all match, or none of them.
    type: dict
  images:
    description: Whether to remove images that have no name and no container.
    type: bool
    default: false
  images_filters:
    description:
      - As O(containers_filters). With V(dangling=false), images with names go, too, unless a container uses them.
    type: dict
  networks:
    description:
      - Whether to remove networks without containers. Unlike Docker's, one that a stopped container is to come back to
        stays.
    type: bool
    default: false
  networks_filters:
    description: As O(containers_filters).
    type: dict
  volumes:
    description: Whether to remove anonymous volumes that no container uses. Their data is lost.
    type: bool
    default: false
  volumes_filters:
    description:
      - V(label) and V(label!) as in O(containers_filters). With V(all=true), named volumes go, too.
    type: dict
seealso:
  - module: wharf.engine.host_info
"""

EXAMPLES = r"""
---
- name: Remove what is left of old deployments
  wharf.engine.prune:
    containers: true
    containers_filters:
      until: 24h
    images: true
    images_filters:
      dangling: false
      label!: keep

- name: Remove volumes that nobody named and nobody uses
  wharf.engine.prune:
    volumes: true
"""

RETURN = r"""
---
containers:
  description: IDs of the containers that were removed.
  returned: O(containers=true)
  type: list
  elements: str
  sample: []
containers_space_reclaimed:
  description: Bytes they had written.
  returned: O(containers=true)
  type: int
  sample: 0
images:
  description: Names that were removed as C(Untagged), IDs of images as C(Deleted).
  returned: O(images=true)
  type: list
  elements: dict
  sample: [{"Untagged": "shop:1.9"}]
images_space_reclaimed:
  description: Bytes the file system got back. In check mode, bytes of the layers that would go.
  returned: O(images=true)
  type: int
  sample: 104857600
networks:
  description: Names of the networks that were removed.
  returned: O(networks=true)
  type: list
  elements: str
  sample: []
volumes:
  description: Names of the volumes that were removed.
  returned: O(volumes=true)
  type: list
  elements: str
  sample: []
volumes_space_reclaimed:
  description: Bytes they took on the disk.
  returned: O(volumes=true)
  type: int
  sample: 0
actions:
  description:
    - What was done, or in check mode what would be done, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    how:
      description:
        - How the difference is made good, here V(remove).
      type: str
      sample: remove
    kind:
      description: What kind of object.
      type: str
      sample: image
    name:
      description: Which one.
      type: str
      sample: shop:1.9
    why:
      description:
        - The reason, in a few words.
      type: str
      sample: no container uses it
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

from ansible_collections.wharf.engine.plugins.module_utils._args import prune
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run("prune", prune.PRUNE)


if __name__ == "__main__":
    main()
