#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_exec
version_added: 0.1.0
short_description: Run a command in a container
description:
  - Run a command in a running container, with the container's own limits, capabilities and file system.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._engine
attributes:
  check_mode:
    support: partial
    details:
      - The container is looked up, the command is not run, and a change is reported.
  diff_mode:
    support: N/A
    details:
      - What the command changes is not known.
  idempotent:
    support: N/A
    details:
      - Whether running it again changes anything depends on the command.

options:
  container:
    description: Name or ID of the container.
    type: str
    required: true
    aliases: [name]
  argv:
    description: The command as a list of words. Either this or O(command) is required.
    type: list
    elements: str
  command:
    description: The command as a string, which is split into words as a shell would, without expanding anything.
    type: str
  chdir:
    description: Absolute path of the directory in the container to run it in. The container's own, unless given.
    type: str
  detach:
    description: Leave the command running and do not wait for it. Its output is lost, and it has no O(stdin).
    type: bool
    default: false
  user:
    description:
      - Who runs it, C(user[:group]) by name or number as the container knows them. The container's own, unless
        given.
    type: str
  stdin:
    description: What the command finds on its standard input.
    type: str
  stdin_add_newline:
    description: Add a newline to O(stdin).
    type: bool
    default: true
  strip_empty_ends:
    description: Remove empty lines from the end of what it wrote.
    type: bool
    default: true
  tty:
    description: Give it a terminal. Standard error then comes with standard output.
    type: bool
    default: false
  env:
    description: Environment variables, beside those of the container.
    type: dict
  timeout:
    description:
      - How many seconds it may take. After that the task fails, and the command is killed with everything it has
        started, what has become independent of it included. (On hosts without any cgroup v2 hierarchy, what is in its
        session.)
    type: float
  privileged:
    description:
      - Run it with all capabilities, as C(docker exec --privileged) does. Devices, seccomp and what is hidden in
        C(/proc) stay as the container has them.
    type: bool
    default: false
seealso:
  - module: wharf.engine.container
  - module: wharf.engine.container_logs
"""

EXAMPLES = r"""
---
- name: Reload the web server
  wharf.engine.container_exec:
    container: web
    argv: [nginx, -s, reload]

- name: Ask the database
  wharf.engine.container_exec:
    container: postgres
    command: psql -U postgres -At
    stdin: select count(*) from orders;
  register: orders
  changed_when: false
"""

RETURN = r"""
---
stdout:
  description: What the command wrote to its standard output.
  returned: success and O(detach=false)
  type: str
  sample: "42"
stderr:
  description: What the command wrote to its standard error.
  returned: success and O(detach=false)
  type: str
  sample: ""
rc:
  description: The command's exit code. With another one than 0 the task fails, unless C(failed_when) says otherwise.
  returned: O(detach=false)
  type: int
  sample: 0
pid:
  description: The command's process number on the host.
  returned: success
  type: int
  sample: 4711
exec_id:
  description: >-
    ID that the command had. While something of it runs, it is among C(ExecIDs) of M(wharf.engine.container_info), and
    its processes are in a cgroup of that name.
  returned: success
  type: str
  sample: 9c1d2e3f4a5b69788796a5b4c3d2e1f09c1d2e3f4a5b69788796a5b4c3d2e1f0
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

from ansible_collections.wharf.engine.plugins.module_utils._args import container
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run(
        "container_exec",
        container.EXEC,
        mutually_exclusive=[("argv", "command")],
        required_one_of=[("argv", "command")],
    )


if __name__ == "__main__":
    main()
