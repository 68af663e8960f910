#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: image_export
version_added: 0.1.0
short_description: Write images to files
description:
  - Write images of the target into an archive or an OCI layout on the target, for C(docker load), C(podman load),
    C(skopeo), C(umoci), or O(wharf.engine.image#module:source=load).
  - The same images under the same names give the same bytes on every host. A file that holds them already is left as
    it is.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.STATE
  - wharf.engine._engine

options:
  names:
    description:
      - References or IDs of the images. An image has in the file the names it is given here; one that is given by its
        ID has none.
    type: list
    elements: str
    required: true
    aliases: [name]
  path:
    description:
      - Where to write. The file appears under its name when it is complete; it can only be read by root, for an image
        may hold secrets. The directory it is in must exist.
      - With O(format=oci-layout) the directory of the layout, which is made if it is missing. Images that are in the
        layout under other names stay there.
    type: path
    required: true
  format:
    description:
      - With V(docker-archive), what C(docker save) writes since Docker 25, an archive that can be read as an OCI
        layout, too. Layers are not compressed in it.
      - With V(oci-archive) and V(oci-layout), an OCI layout as one file or as a directory. Layers that were pulled are
        written as the registry had them, and keep their digests.
    type: str
    choices: [docker-archive, oci-archive, oci-layout]
    default: docker-archive
seealso:
  - module: wharf.engine.image
"""

EXAMPLES = r"""
---
- name: Save two images into one archive
  wharf.engine.image_export:
    names:
      - shop:2.1
      - nginx:1.29
    path: /srv/images/shop.tar

- name: Keep an OCI layout up to date for skopeo and umoci
  wharf.engine.image_export:
    names: [shop:2.1]
    path: /srv/images/shop
    format: oci-layout
"""

RETURN = r"""
---
images:
  description: The images in the shape of C(docker image inspect).
  returned: success
  type: list
  elements: dict
  sample: []
path:
  description: Where they are.
  returned: success
  type: str
  sample: /srv/images/shop.tar
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
      sample: image
    name:
      description: Which one.
      type: str
      sample: /srv/images/shop.tar
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
    run("image_export", export.IMAGE_EXPORT)


if __name__ == "__main__":
    main()
