#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: image_info
version_added: 0.1.0
short_description: Look at images
description:
  - Return the images named, or all.
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
    description:
      - References or IDs of images. Those that don't exist are left out. Without it, all images are returned.
    type: list
    elements: str
  history:
    description:
      - Whether to add C(History), the steps the image was made in, newest first, as C(docker history) shows them.
    type: bool
    default: false
  filters:
    description:
      - Return only the images that C(docker image ls --all --filter) would list. Several filters must all match; of
        several values of one filter one must, but of C(label) all.
      - C(reference) is a pattern for C(repository) or C(repository:tag), in which V(*) does not match a slash;
        C(dangling) is V(true) for images without a name; C(label) is C(key) or C(key=value), or a dictionary;
        C(before) and C(since) name an image; C(until) is a time, or a duration back from now, such as V(24h).
      - Filters with other names are refused.
    type: dict
seealso:
  - module: wharf.engine.image
"""

EXAMPLES = r"""
---
- name: Is the image there
  wharf.engine.image_info:
    name: nginx:1.29
  register: found

- name: Say so
  ansible.builtin.debug:
    msg: "{{ 'yes' if found.images else 'no' }}"

- name: All images with their sizes
  wharf.engine.image_info:
    query: "[].{tags: RepoTags, bytes: Size}"

- name: IDs of all versions of nginx older than a month
  wharf.engine.image_info:
    filters:
      reference: nginx:*
      until: 720h
    format: !unsafe "{{ .Id }}"
"""

RETURN = r"""
---
images:
  description:
    - The images, each in the shape of C(docker image inspect), or what O(query) or O(format) made of the list.
    - C(UniqueSize) counts the bytes of layers that no other image has, C(SharedSize) those of the others. C(Size) is
      both together.
  returned: success
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

from ansible_collections.wharf.engine.plugins.module_utils._args import image
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run("image_info", image.IMAGE_INFO, mutually_exclusive=[["query", "format"]])


if __name__ == "__main__":
    main()
