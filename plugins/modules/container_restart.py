#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_restart
version_added: 0.1.0
short_description: Restart a container
description:
  - Stop a container if it runs, and start it, as C(docker restart) does. Its configuration is left alone, and a
    container that removes itself when it ends (O(wharf.engine.container#module:auto_remove)) is not removed.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._engine
attributes:
  check_mode:
    support: full
    details:
      - The plan is returned as RV(actions); nothing is stopped or started.
  diff_mode:
    support: full
  idempotent:
    support: none
    details:
      - A restart is an event. To have a container running, use M(wharf.engine.container).

options:
  container:
    description: Name or ID of the container.
    type: str
    required: true
  stop_timeout:
    description:
      - How many seconds it has to stop by itself, before it is killed. What the container was made with, unless given.
    type: int
  force_kill:
    description: Kill it instead of asking it to stop.
    type: bool
    default: false
  kill_signal:
    description: The signal to kill it with, with O(force_kill=true). V(KILL), unless given.
    type: str
seealso:
  - module: wharf.engine.container
"""

EXAMPLES = r"""
---
- name: Have the application read its files again
  wharf.engine.container_restart:
    container: app
"""

RETURN = r"""
---
actions:
  description:
    - What was done, or in check mode what would be done, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    how:
      description:
        - How the difference is made good, here V(stop) or V(start).
      type: str
      sample: start
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
        - The reason, in a few words.
      type: str
      sample: ""
    detail:
      description: More about it.
      type: dict
      sample: {}
container:
  description: The container afterwards, in the shape of C(docker inspect).
  returned: success
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

from ansible_collections.wharf.engine.plugins.module_utils._args import around
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run("container_restart", around.RESTART)


if __name__ == "__main__":
    main()
