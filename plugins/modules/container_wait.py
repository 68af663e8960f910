#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_wait
version_added: 0.1.0
short_description: Wait for a container
description:
  - Wait until a container has ended, runs, is healthy, or is gone.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.INFO
  - wharf.engine._engine
attributes:
  check_mode:
    details:
      - Nothing is waited for, and a container that does not exist is no error, because the tasks that would have made
        and started it did not.

options:
  container:
    description: Name or ID of the container.
    type: str
    required: true
    aliases: [name]
  condition:
    description: What to wait for.
    type: str
    choices:
      not-running: It has ended for good. One that its restart policy will start again has not.
      next-exit: It exits the next time, whether a restart policy starts it again or not.
      removed: It does not exist. Nor does it have to exist when the task begins.
      healthy: >-
        Its health check says that it is healthy, or it runs and has none. The task fails as soon as the container ends
        or turns unhealthy.
      running: It runs and is not paused.
    default: not-running
  timeout:
    description: How many seconds to wait. The task fails after that. V(0) waits without end.
    type: float
    default: 300
seealso:
  - module: wharf.engine.container
  - module: wharf.engine.container_info
"""

EXAMPLES = r"""
---
- name: Wait for the migration to end
  wharf.engine.container_wait:
    container: migrate
    timeout: 600
  register: migration
  failed_when: migration is failed or migration.exit_code != 0

- name: Wait for the database
  wharf.engine.container_wait:
    container: postgres
    condition: healthy
"""

RETURN = r"""
---
exit_code:
  description: Exit code of the last run. V(null) while it runs, and if it never ran or is not there any more.
  returned: success
  type: int
  sample: 0
status:
  description: >-
    The container's state, V(created), V(running), V(paused), V(restarting), V(exited), or V(absent). With
    O(condition=removed), the last state that was seen.
  returned: success
  type: str
  sample: exited
oom_killed:
  description: Whether something in it was killed because it had no memory left.
  returned: success
  type: bool
  sample: false
reason:
  description: Why it could not start or is not known to have ended, V(null) when it just ended.
  returned: success
  type: str
  sample: null
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
    run("container_wait", around.WAIT)


if __name__ == "__main__":
    main()
