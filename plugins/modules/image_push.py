#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: image_push
version_added: 0.1.0
short_description: Push an image to its registry
description:
  - Make a reference name, at its registry, the image that it names on the target.
  - The registry is asked first. An image that it has under this tag is not sent again, and of another one only the
    layers that it lacks. Layers that it has in another repository are mounted from there where it allows that.
  - What was pulled is pushed bit for bit, with the same digest. Layers of an image that was made on the target are
    compressed for the push, always in the same way.
  - In check mode the registry is asked whether a push would change anything.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.STATE
  - wharf.engine._engine
  - wharf.engine._engine.TRANSPORT

options:
  name:
    description:
      - Reference of the image on the target, which also says where it is pushed to, such as
        V(registry.example.com:5000/shop:1.2). Give an image such a reference with O(wharf.engine.image#module:tags).
    type: str
    required: true
  tag:
    description:
      - The tag, if O(name) has none. If neither has one, it is V(latest).
    type: str
  all_platforms:
    description:
      - Push the index of images for several platforms that the image was pulled from, with all of them, bit for bit and
        with the same digest. What it lists beside images, such as attestations, goes along.
      - The images for other platforms are not on the target. They are taken from where the index came from, or mounted
        by the registry where that is the same one, and not kept. If the image was pulled from several indexes, the
        one that came last is pushed.
      - Fails when the image did not come from an index.
    type: bool
    default: false
  timeout:
    description: How many seconds the registry may keep silent before the task fails.
    type: float
    default: 60
notes:
  - When an image was pulled from an index of images for several platforms, only the image for its platform is on the
    target, and only that is pushed, unless O(all_platforms=true) is given. Nothing is pushed to where the image came
    from as long as the tag names the same index.
seealso:
  - module: wharf.engine.image
  - module: wharf.engine.registry
"""

EXAMPLES = r"""
---
- name: Log in
  wharf.engine.registry:
    registry_url: registry.example.com
    username: deploy
    password: "{{ registry_password }}"

- name: Push an image
  wharf.engine.image_push:
    name: registry.example.com/shop:1.2

- name: Bring an image for all platforms into our own registry, with its digest
  wharf.engine.image:
    name: docker.io/library/nginx:1.29
    tags: [registry.example.com/nginx:1.29]

- name: Push all of it
  wharf.engine.image_push:
    name: registry.example.com/nginx:1.29
    all_platforms: true
"""

RETURN = r"""
---
digest:
  description:
    - Digest of the manifest that the tag names at the registry after the push.
    - V(null) in check mode for an image whose layers were not compressed yet.
  returned: success
  type: str
  sample: sha256:1d2c3b4a59687786a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f00f1e
image:
  description: The image in the shape of C(docker image inspect).
  returned: success
  type: dict
  sample:
    Architecture: amd64
    Config:
      Cmd: [nginx, -g, "daemon off;"]
      Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
      ExposedPorts: {"80/tcp": {}}
    Created: "2026-11-01T12:00:00Z"
    Id: sha256:0b3b1a1d2a9f3d6d6b5a4c3b2a190817263544536271809f8e7d6c5b4a392817
    Os: linux
    RepoDigests: ["docker.io/library/nginx@sha256:1d2c3b4a59687786a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f00f1e"]
    RepoTags: ["nginx:1.29"]
    RootFS:
      Layers: ["sha256:9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0"]
      Type: layers
    Size: 192000000
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
          V(start), V(stop), V(pull), V(push), V(import), V(untag) or V(disconnect).
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
      description:
        - More about it, such as the option with its values before and after.
        - Of a push, C(digest), C(sent) (bytes), how many blobs were C(uploaded), C(mounted) by the registry from
          another of its repositories and C(present) already, and C(seconds) of each phase.
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

from ansible_collections.wharf.engine.plugins.module_utils._args import image
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run("image_push", image.IMAGE_PUSH, image.TRANSPORT)


if __name__ == "__main__":
    main()
