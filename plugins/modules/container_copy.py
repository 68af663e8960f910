#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_copy
version_added: 0.1.0
short_description: Copy files into and out of a container
description:
  - Copy a file, a link or a directory between the target host and a container that runs, is paused, is stopped, or
    never ran. Only what differs is written, by content, owner and mode.
  - O(path) and O(container_path) each name the file or directory itself, never the directory to put it into. A
    directory is copied with all that is in it; what the other side has besides stays.
  - Links in a directory are copied as links. Devices, FIFOs and sockets are left out with a warning.
  - Files appear under their names complete. A path of the container is followed inside the container only, whatever its
    processes do to it meanwhile.
  - Volumes and binds are where the container sees them. Memory file systems (tmpfs) are only there while it runs.
    What is in C(/proc), C(/sys) and C(/dev) is not copied, and C(/etc/hosts), C(/etc/hostname) and
    C(/etc/resolv.conf) of a running container cannot be replaced; they are made from options of
    M(wharf.engine.container).
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.STATE
  - wharf.engine._engine
attributes:
  diff_mode:
    details:
      - Texts of up to 100 KB are shown as they are, unless they come from O(content), which may be a secret. Of other
        files size, owner and mode are shown.
  idempotent:
    support: partial
    details:
      - With O(force=true) every run writes.

options:
  container:
    description: Name or ID of the container.
    type: str
    required: true
  direction:
    description: Which of the two is the source.
    type: str
    choices:
      into: O(path) or O(content) is copied to O(container_path).
      from: O(container_path) is copied to O(path).
    default: into
  path:
    description:
      - Absolute path on the target host. Bring files there from the controller with C(ansible.builtin.copy), or use
        O(content).
      - Required unless O(content) is given. The directory it is in must exist.
    type: path
  content:
    description:
      - What the file in the container is to hold, instead of that of O(path). Needs O(mode), and O(direction=into).
    type: str
  content_is_b64:
    description: Whether O(content) is Base64, for files that are no text.
    type: bool
    default: false
  container_path:
    description: Absolute path in the container. The directory it is in must exist.
    type: str
    required: true
  follow:
    description:
      - If O(container_path) is a link, whether what it leads to in the container is meant. Otherwise the link itself is
        replaced, or copied.
    type: bool
    default: false
  local_follow:
    description: If O(path) is a link, whether what it leads to is meant.
    type: bool
    default: true
  owner_id:
    description:
      - Number of the user who is to own the copy. Needs O(group_id).
      - In a container, the user that its command runs as, unless given. On the host, root.
    type: int
  group_id:
    description: Number of the group that is to own the copy. Needs O(owner_id).
    type: int
  mode:
    description:
      - Mode of files, in quotes, as V('0644'). That of each source file, unless given; of a container's files without
        set-user-ID and set-group-ID bits.
    type: raw
  directory_mode:
    description:
      - Mode of directories. That of each source directory, unless given.
      - The directory that is copied to keeps owner and mode when it exists already, unless this, or O(owner_id), is
        given.
    type: raw
  force:
    description:
      - With V(true), everything is written even if it is the same. With V(false), what exists is left alone whatever it
        holds.
      - Unless given, what differs is written.
    type: bool
seealso:
  - module: wharf.engine.container_exec
  - module: wharf.engine.container_export
"""

EXAMPLES = r"""
---
- name: Configure the web server
  wharf.engine.container_copy:
    container: web
    path: /srv/web/nginx.conf
    container_path: /etc/nginx/nginx.conf
    owner_id: 0
    group_id: 0
    mode: '0644'

- name: Put a whole site where the volume is mounted
  wharf.engine.container_copy:
    container: web
    path: /srv/web/site
    container_path: /usr/share/nginx/html

- name: Write a key
  wharf.engine.container_copy:
    container: web
    content: "{{ key }}"
    container_path: /etc/nginx/key.pem
    owner_id: 0
    group_id: 0
    mode: '0600'

- name: Keep what a job has left, though it has ended
  wharf.engine.container_copy:
    container: report
    direction: from
    container_path: /out
    path: /srv/reports/latest
"""

RETURN = r"""
---
container:
  description: Name of the container.
  returned: success
  type: str
  sample: web
container_path:
  description: The path in the container, in its shortest form.
  returned: success
  type: str
  sample: /etc/nginx/nginx.conf
path:
  description: The path on the host, V(null) with O(content).
  returned: success
  type: str
  sample: /srv/web/nginx.conf
actions:
  description:
    - What was done, or in check mode what would be done, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    how:
      description:
        - How the difference is made good, one of V(create), V(write), V(attributes).
      type: str
      sample: write
    kind:
      description: V(file), V(directory) or V(link).
      type: str
      sample: file
    name:
      description: The path of the copy.
      type: str
      sample: /etc/nginx/nginx.conf
    why:
      description:
        - The reason, in a few words.
      type: str
      sample: content, mode
    detail:
      description: More about it.
      type: dict
      sample: {"mode": {"before": "0600", "after": "0644"}}
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

from ansible_collections.wharf.engine.plugins.module_utils._args import around
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run(
        "container_copy",
        around.COPY,
        mutually_exclusive=[("path", "content")],
        required_together=[("owner_id", "group_id")],
        required_by={"content": ["mode"]},
    )


if __name__ == "__main__":
    main()
