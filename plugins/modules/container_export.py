#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_export
version_added: 0.1.0
short_description: Write a container's files to an archive
description:
  - Write the root file system of a container, image and changes in one, into a tar archive on the target. It can be
    imported with O(wharf.engine.image#module:source=import), or unpacked.
  - What is mounted in the container (volumes, binds, tmpfs) is not part of it.
  - An archive that holds exactly that already is left as it is.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.STATE
  - wharf.engine._engine

options:
  container:
    description:
      - Name or ID of the container. It may run; files that are written meanwhile may be in the archive half-written.
    type: str
    required: true
  path:
    description:
      - The archive to write. It appears under its name when it is complete, and can only be read by root. The
        directory it is in must exist.
    type: path
    required: true
seealso:
  - module: wharf.engine.container_commit
"""

EXAMPLES = r"""
---
- name: Keep a copy of everything
  wharf.engine.container_export:
    container: web
    path: /srv/backup/web.tar
"""

RETURN = r"""
---
path:
  description: Where it is.
  returned: success
  type: str
  sample: /srv/backup/web.tar
actions:
  description:
    - What was done, or in check mode what would be done, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    how:
      description:
        - How the difference is made good, here V(export).
      type: str
      sample: export
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
      sample: missing
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

from ansible_collections.wharf.engine.plugins.module_utils._args import export
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run("container_export", export.CONTAINER_EXPORT)


if __name__ == "__main__":
    main()
