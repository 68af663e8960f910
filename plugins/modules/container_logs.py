#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_logs
version_added: 0.1.0
short_description: Read what a container wrote
description:
  - Return what a container wrote to its standard output and standard error, whether it runs or not, or wait until it
    has written a certain line.
  - Reads what the log drivers V(json-file) and V(local) keep, rotated and compressed files included. A container whose
    output goes to journald or syslog is refused.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.INFO
  - wharf.engine._engine

options:
  name:
    description: Name or ID of the container.
    type: str
    required: true
  tail:
    description: Only so many of the last lines. Parts of a line longer than 16 KiB count as one.
    type: int
  since:
    description: Only what was written at or after this time, in RFC 3339 or as a duration before now, such as V(10m).
    type: str
  until:
    description: Only what was written before this time, in RFC 3339 or as a duration before now, such as V(10m).
    type: str
  stdout:
    description: Return standard output.
    type: bool
    default: true
  stderr:
    description: Return standard error.
    type: bool
    default: true
  timestamps:
    description: Begin every line with the time it was written.
    type: bool
    default: false
  details:
    description: Return the labels and variables that the container's O(wharf.engine.container#module:log_options) asked
      for, and begin every line with them.
    type: bool
    default: false
  wait_for:
    description:
      - A Python regular expression. The module waits until the container has written a line that it is found in, on one
        of the streams asked for, and fails when the container ends before that, or O(wait_timeout) has passed.
      - Without O(since), only what was written since the container was last started is looked at.
    type: str
  wait_timeout:
    description: How many seconds to wait for O(wait_for).
    type: float
    default: 60
seealso:
  - module: wharf.engine.container
"""

EXAMPLES = r"""
---
- name: The last words of a container
  wharf.engine.container_logs:
    name: web
    tail: 20
  register: logs

- name: Errors of the last hour
  wharf.engine.container_logs:
    name: web
    since: 1h
    stdout: false
    timestamps: true

- name: Go on when the database takes connections
  wharf.engine.container_logs:
    name: db
    wait_for: "ready to accept connections on port ([0-9]+)"
    wait_timeout: 120
    tail: 0
  register: ready
"""

RETURN = r"""
---
stdout:
  description: What the container wrote to the streams asked for, in the order it was written.
  returned: success
  type: str
  sample: listening on port 80
stdout_lines:
  description: The same, line by line.
  returned: success
  type: list
  elements: str
  sample: [listening on port 80]
lines:
  description: The same, with time and stream.
  returned: success
  type: list
  elements: dict
  contains:
    time:
      description: When it was written, in RFC 3339.
      type: str
      sample: "2026-11-24T03:40:00.123456789Z"
    stream:
      description: Where it was written to, V(stdout) or V(stderr).
      type: str
      sample: stdout
    line:
      description: The line, without its end.
      type: str
      sample: listening on port 80
    attrs:
      description: What the log options C(labels), C(env) and C(tag) say of the container.
      returned: with O(details)
      type: dict
      sample: {tier: front}
matched:
  description: The first line that O(wait_for) was found in.
  returned: with O(wait_for)
  type: dict
  contains:
    time:
      description: When it was written, in RFC 3339.
      type: str
      sample: "2026-11-24T03:40:00.123456789Z"
    stream:
      description: Where it was written to, V(stdout) or V(stderr).
      type: str
      sample: stdout
    line:
      description: The line, without its end.
      type: str
      sample: ready to accept connections on port 5432
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
    run("container_logs", container.LOGS)


if __name__ == "__main__":
    main()
