#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: registry_info
version_added: 0.1.0
short_description: Look at registries
description:
  - Say whether a registry can be reached from the target and whether the engine has credentials for it.
  - List the tags of a repository, or the repositories of the registry.
  - Show the manifest of an image without pulling it, and what refers to it, such as SBOMs and signatures.
  - Search for images.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.INFO
  - wharf.engine._engine
  - wharf.engine._engine.QUERY
  - wharf.engine._engine.TRANSPORT

options:
  registry_url:
    description: Host name of the registry, with a port if it is not the usual one. A URL is accepted, too.
    type: str
    default: docker.io
    aliases: [registry, url]
  name:
    description:
      - A repository in the registry whose tags to list. Without it, repositories are listed.
      - With a tag or a digest, such as V(shop:1.2), the image whose manifest to show.
    type: str
  referrers:
    description:
      - With a tag or a digest in O(name), also list what refers to the image, as the registry tells it. Nothing of that
        is verified.
    type: bool
    default: false
  search:
    description:
      - Words to search for, on Docker Hub unless O(registry_url) is given. Registries without a search are asked for
        their repositories, and those whose names contain the words are listed.
    type: str
  limit:
    description: How many results of a O(search) to list, from 1 to 100.
    type: int
    default: 25
  timeout:
    description: How many seconds the registry may keep silent before the task fails.
    type: float
    default: 60
seealso:
  - module: wharf.engine.registry
"""

EXAMPLES = r"""
---
- name: Can the target reach the registry
  wharf.engine.registry_info:
    registry_url: registry.example.com

- name: Tags of a repository
  wharf.engine.registry_info:
    registry_url: registry.example.com
    name: shop

- name: The digest that a tag names now
  wharf.engine.registry_info:
    registry_url: registry.example.com
    name: shop:stable
    query: manifest.digest

- name: SBOMs and signatures of an image
  wharf.engine.registry_info:
    registry_url: registry.example.com
    name: shop:stable
    referrers: true

- name: Official images of a database
  wharf.engine.registry_info:
    search: postgres
    query: search[?is_official].name
"""

RETURN = r"""
---
registry:
  description:
    - The registry, or what O(query) made of it.
    - It has C(tags) when O(name) is given, and otherwise C(repositories), which is V(null) for registries that don't
      list them.
    - With a tag or digest in O(name) it has C(manifest) with C(digest), C(media_type), C(size) and the C(document)
      itself. Of an image also the C(total) bytes of its layers and its C(config), of an index the C(platforms).
    - With O(referrers=true) it has C(referrers), a list with C(kind), C(digest), C(media_type), C(artifact_type),
      C(size), C(annotations) and C(source).
    - With O(search) it has only C(name) and C(search), a list with C(name), C(description), C(star_count) and
      C(is_official).
  returned: success
  type: raw
  sample:
    name: registry.example.com
    url: https://registry.example.com
    auth: basic
    version: registry/2.0
    logged_in: true
    username: deploy
    tags: ["1.0", "1.1", latest]
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
    run("registry_info", image.REGISTRY_INFO, image.TRANSPORT)


if __name__ == "__main__":
    main()
