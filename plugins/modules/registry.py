#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: registry
version_added: 0.1.0
short_description: Log in to registries, and choose their mirrors
description:
  - Keep or remove the credentials that the engine uses for a registry on this target.
  - Credentials are verified with the registry before they are kept, in a file that only root can read.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.STATE
  - wharf.engine._engine
  - wharf.engine._engine.TRANSPORT

options:
  registry_url:
    description: Host name of the registry, with a port if it is not the usual one. A URL is accepted, too.
    type: str
    default: docker.io
    aliases: [registry, url]
  username:
    description: Name to log in with. Required with O(state=present), unless O(mirrors) is given.
    type: str
    aliases: [user]
  password:
    description: Password or access token. Required with O(username).
    type: str
  reauthorize:
    description: Ask the registry whether the credentials are still good even if they are the same as last time.
    type: bool
    default: false
    aliases: [reauth]
  mirrors:
    description:
      - Where images of this registry are pulled from before the registry itself is asked, in this order, such as
        V(https://mirror.example.com) or V(http://10.0.0.1:5000/hub). Without a scheme it is https.
      - The list is complete, and an empty one means none. Without this option, mirrors stay as they are.
      - A mirror that fails is passed over with a warning.
    type: list
    elements: str
  state:
    description:
      - With V(present) the credentials and mirrors are kept.
      - With V(absent) there are none for this registry.
    type: str
    choices: [absent, present]
    default: present
  timeout:
    description: How many seconds the registry may keep silent before the task fails.
    type: float
    default: 60
notes:
  - Credentials are also read from the files of Docker and Podman and from credential helpers that those name, mirrors
    from C(/etc/containers/registries.conf) and C(/etc/docker/daemon.json), and certificates from
    C(/etc/containers/certs.d) and C(/etc/docker/certs.d). This module changes none of them.
  - For Amazon ECR, AWS keys in the task's C(environment) or in C(~/.aws/credentials) of the target are enough.
seealso:
  - module: wharf.engine.registry_info
  - module: wharf.engine.image
"""

EXAMPLES = r"""
---
- name: Log in
  wharf.engine.registry:
    registry_url: registry.example.com
    username: deploy
    password: "{{ registry_password }}"

- name: Pull Docker Hub's images through a mirror
  wharf.engine.registry:
    registry_url: docker.io
    mirrors:
      - https://mirror.example.com

- name: Log out
  wharf.engine.registry:
    registry_url: registry.example.com
    state: absent
"""

RETURN = r"""
---
login_result:
  description: Who is logged in where. Empty when nobody is.
  returned: success
  type: dict
  sample: {"registry": "registry.example.com", "username": "deploy"}
mirrors:
  description: The registry's mirrors as set by this module.
  returned: success
  type: list
  elements: str
  sample: ["https://mirror.example.com"]
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

from ansible_collections.wharf.engine.plugins.module_utils._args import image
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run(
        "registry",
        image.REGISTRY,
        image.TRANSPORT,
        required_if=[("state", "present", ("username", "password"))],
    )


if __name__ == "__main__":
    main()
