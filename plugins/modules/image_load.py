#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: image_load
version_added: 0.1.0
short_description: Load all images of an archive
description:
  - Take all images of an archive or OCI layout on the target, under the names they have there, as C(docker load) does.
    For a single image under a name of your choice, use O(wharf.engine.image#module:source=load).
  - What is there already is not read again. A name that means another image on the target is moved, and the plan says
    so.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.STATE
  - wharf.engine._engine

options:
  path:
    description:
      - What C(docker save), C(podman save), C(skopeo) or M(wharf.engine.image_export) wrote, a docker-archive or
        oci-archive, plain or compressed with gzip, bzip2, xz or zstd; or the directory of an OCI layout or of
        C(skopeo)'s C(dir:), which has no names.
    type: path
    required: true
  names:
    description:
      - Load only the images with these names, and give them no other names of the archive. All images, unless given;
        one that has no name in the archive, or only a tag, then has none on the target either.
    type: list
    elements: str
  platform:
    description:
      - Where the archive has an image for several platforms, the one to take, such as V(linux/arm64). The target's own,
        unless given.
    type: str
seealso:
  - module: wharf.engine.image
  - module: wharf.engine.image_export
"""

EXAMPLES = r"""
---
- name: Load what docker save wrote
  wharf.engine.image_load:
    path: /srv/images/shop.tar.gz
  register: loaded

- name: Show the names
  ansible.builtin.debug:
    var: loaded.image_names

- name: Load two of its images
  wharf.engine.image_load:
    path: /srv/images/shop.tar.gz
    names: [shop:2.1, shop-db:2.1]
"""

RETURN = r"""
---
image_names:
  description: The names that the archive gives its images, as people write them.
  returned: success
  type: list
  elements: str
  sample: ["shop:2.1", "shop-db:2.1"]
images:
  description: The images in the shape of C(docker image inspect). In check mode, those that are on the target.
  returned: success
  type: list
  elements: dict
  sample:
    - Id: sha256:0b3b1a1d2a9f3d6d6b5a4c3b2a190817263544536271809f8e7d6c5b4a392817
      RepoTags: ["shop:2.1"]
actions:
  description:
    - What was done, or in check mode what would be done, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    how:
      description:
        - How the difference is made good. V(load) brings an image in, V(tag) gives it a name.
      type: str
      sample: load
    kind:
      description: What kind of object.
      type: str
      sample: image
    name:
      description: Which one.
      type: str
      sample: docker.io/library/shop:2.1
    why:
      description:
        - The reason, in a few words.
      type: str
      sample: missing
    detail:
      description:
        - More about it. C(layers) and C(layers_missing) of an image; of a name, the C(image) it is given to, and in
          C(replaces) the image that it named before.
      type: dict
      sample: {"image": "sha256:0b3b1a1d2a9f3d6d6b5a4c3b2a190817263544536271809f8e7d6c5b4a392817"}
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
    run("image_load", image.IMAGE_LOAD)


if __name__ == "__main__":
    main()
