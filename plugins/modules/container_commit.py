#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_commit
version_added: 0.1.0
short_description: Make an image of a container
description:
  - Make an image of what a container changed in its file system, on top of the image it was made from. An image that is
    built by a task from known sources is easier to make again; this is for what cannot be.
  - Files that were opened for writing but are what they were, volumes, binds, tmpfs, and the files the engine mounts
    (C(/etc/hosts), C(/etc/hostname), C(/etc/resolv.conf)) are not part of it.
  - When O(name) already is what would be made, but for the time, nothing changes.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.STATE
  - wharf.engine._engine

options:
  container:
    description: Name or ID of the container. It may run.
    type: str
    required: true
  name:
    description: Reference the new image gets. Another image of that name loses it.
    type: str
    required: true
  author:
    description: Who made the image, such as V(Ada <ada@example.com>).
    type: str
  comment:
    description: What the image's history says about it, C(docker commit)'s message.
    type: str
  changes:
    description:
      - Changes to the configuration as Dockerfile instructions. C(CMD), C(ENTRYPOINT), C(ENV), C(EXPOSE),
        C(HEALTHCHECK), C(LABEL), C(ONBUILD), C(STOPSIGNAL), C(USER), C(VOLUME) and C(WORKDIR) are understood. All else
        is as the container has it.
    type: list
    elements: str
  pause:
    description:
      - Whether a running container is frozen while its files are read. Without it, files may be read half-written.
    type: bool
    default: true
seealso:
  - module: wharf.engine.container_export
  - module: wharf.engine.image_export
"""

EXAMPLES = r"""
---
- name: Keep what was installed by hand
  wharf.engine.container_commit:
    container: web
    name: web:patched
    author: Ada <ada@example.com>
    comment: with the vendor's patch
    changes:
      - CMD ["nginx", "-g", "daemon off;"]
      - ENV PATCHED=1
"""

RETURN = r"""
---
image:
  description: The image in the shape of C(docker image inspect). V(null) in check mode, if it would be made.
  returned: success
  type: dict
  sample: {}
actions:
  description:
    - What was done, or in check mode what would be done, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    how:
      description:
        - How the difference is made good, here V(commit).
      type: str
      sample: commit
    kind:
      description: What kind of object.
      type: str
      sample: image
    name:
      description: Which one.
      type: str
      sample: docker.io/library/web:patched
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
    run("container_commit", export.CONTAINER_COMMIT)


if __name__ == "__main__":
    main()
