#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_kill
version_added: 0.1.0
short_description: Send a signal to a container
description:
  - Send a signal to the first process of a running container, as C(docker kill) does.
  - V(KILL), and the signal that the container is stopped with (O(wharf.engine.container#module:stop_signal)), count as
    stopping it by hand, so that no restart policy brings it back. After V(KILL) the module waits until the container
    has ended; what a program makes of any other signal is its own business, and M(wharf.engine.container_wait) waits
    for it.
  - A container that does not run is an error. To have one stopped whatever it does now, use
    M(wharf.engine.container) with O(wharf.engine.container#module:state=stopped) and
    O(wharf.engine.container#module:force_kill=true).
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._engine
attributes:
  check_mode:
    support: full
    details:
      - The container is looked up and must run; no signal is sent.
  diff_mode:
    support: full
    details:
      - The container's state before, and after V(KILL). What another signal will do is not known.
  idempotent:
    support: none
    details:
      - A signal is an event. Every one that was sent is a change.

options:
  container:
    description: Name or ID of the container.
    type: str
    required: true
  signal:
    description: The signal as V(SIGHUP), V(HUP), V(1) or V(SIGRTMIN+3).
    type: str
    default: KILL
seealso:
  - module: wharf.engine.container
  - module: wharf.engine.container_wait
"""

EXAMPLES = r"""
---
- name: Have the web server read its configuration again
  wharf.engine.container_kill:
    container: web
    signal: HUP

- name: End it now
  wharf.engine.container_kill:
    container: web
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
        - How the difference is made good, here V(kill).
      type: str
      sample: kill
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
      sample: {"signal": "SIGHUP", "number": 1}
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
    run("container_kill", around.KILL)


if __name__ == "__main__":
    main()
