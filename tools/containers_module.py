# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes plugins/modules/containers.py: its entries take the options of ``container``, so they are documented once,
in that module, and copied. ``tests/unit/delivery/test_containers_module.py`` fails while the copy is old."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "plugins")]

from module_utils._args import container

HEAD = '''#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Made by tools/containers_module.py from the documentation of the container module; longer than other files for that
# reason, and not edited by hand.

from __future__ import annotations

DOCUMENTATION = r"""
---
module: containers
version_added: 0.1.0
short_description: Manage many containers in one task
description:
  - Takes a list of containers, each described as for M(wharf.engine.container), and makes the target agree with all of
    them in one run. One task with 50 entries takes about as long as two tasks with one.
  - Images are pulled and containers started several at a time, in the order that O(containers[].depends_on) asks for.
    Whoever shares a namespace or volumes with another container of the list, or links to it, waits without being told.
  - An entry that cannot be what it says fails the task before anything changes. One that fails on the way takes along
    those that depend on it, at once, and nobody else. The task fails when all others are as they should be, and the
    error's C(containers) says of each entry how far it came.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.STATE
  - wharf.engine._engine
  - wharf.engine._engine.TRANSPORT

options:
  pull:
    description:
      - With V(missing) images are pulled when they are not on the target, with V(always) the registry is asked every
        time, once for each image, with V(never) the task fails when one is not there.
    type: str
    choices: [never, missing, always]
    default: missing
  inspect:
    description:
      - Return each container in the shape of C(docker inspect), too.
    type: bool
    default: false
  containers:
    description:
      - The containers.
    type: list
    elements: dict
    required: true
    suboptions:
      depends_on:
        description:
          - Containers that must be ready before work on this one begins, in this list or on the target.
          - For O(containers[].state=absent), this one goes before those it depends on.
        type: list
        elements: dict
        suboptions:
          name:
            description: Name of the container.
            type: str
            required: true
          condition:
            description:
              - What ready means. V(started), it runs. V(healthy), its health check succeeds, or it runs and has none.
                V(completed), it ended with exit code 0. The task fails as soon as that can never be.
            type: str
            choices: [started, healthy, completed]
            default: started
'''

TAIL = '''
seealso:
  - module: wharf.engine.container
  - module: wharf.engine.container_info
"""

EXAMPLES = r"""
---
- name: A shop
  wharf.engine.containers:
    containers:
      - name: db
        image: docker.io/library/postgres:17
        networks: [{name: shop}]
        secrets: [{name: password, content: "{{ postgres_password }}"}]
        env: {POSTGRES_PASSWORD_FILE: /run/secrets/password}
        healthcheck: {test: pg_isready -U postgres, interval: 2s}
      - name: migrate
        image: registry.example.org/shop:7
        command: [migrate]
        networks: [{name: shop}]
        depends_on: [{name: db, condition: healthy}]
      - name: web
        image: registry.example.org/shop:7
        networks: [{name: shop}]
        published_ports: ["80:8080"]
        depends_on: [{name: migrate, condition: completed}]

- name: All that the inventory says
  wharf.engine.containers:
    containers: "{{ shop_containers }}"
"""

RETURN = r"""
---
containers:
  description: One entry for each of O(containers), in the same order.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the container.
      type: str
      sample: web
    changed:
      description: Whether anything was done about it, or in check mode would be.
      type: bool
      sample: true
    id:
      description: Its ID. V(null) when there is no such container.
      type: str
      sample: 3f1c2b4a59687786a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f00f1e
    status:
      description: Such as V(running), V(exited), V(created), V(paused) or V(absent).
      type: str
      sample: running
    actions:
      description: What was done about it. Of the same form as the C(actions) of M(wharf.engine.container).
      type: list
      elements: dict
      sample: [{how: start, kind: container, name: web, why: is exited, detail: {}}]
    differences:
      description:
        - What was not as the entry asks, and how it is dealt with, when there is anything. Of the same form as the
          C(differences) of M(wharf.engine.container).
      type: list
      elements: dict
      sample: [{option: labels, before: {}, after: {a: b}, change: live, cause: asked,
                why: the running container takes it}]
    container:
      description: The container in the shape of C(docker inspect), with O(inspect=true).
      type: dict
      sample: {Name: /web, State: {Status: running}}
actions:
  description: What was done about all of them, in the order of O(containers).
  returned: success
  type: list
  elements: dict
  sample: [{how: start, kind: container, name: web, why: is exited, detail: {}}]
error:
  description:
    - What went wrong, as for M(wharf.engine.container). C(containers) has the entries of RV(containers); the one at
      fault has V(failed) and C(msg), those whose work has not begun or not ended have V(skipped).
  returned: failure
  type: dict
  sample: {kind: unhealthy, step: depends_on, subject: container db, containers: [{name: db, failed: true}]}
msg:
  description: What went wrong, on what, and why, in a sentence.
  returned: failure
  type: str
  sample: "containers[0] (db): Container db exited with code 1 before it was healthy"
"""

from ansible_collections.wharf.engine.plugins.module_utils._args import container
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run("containers", container.MANY)


if __name__ == "__main__":
    main()
'''


def options() -> str:
    """The options of ``container`` that an entry takes, as text, one level deeper and with references to match."""
    text = (ROOT / "plugins/modules/container.py").read_text()
    found = re.search(r"^options:\n(.*?)^seealso:", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit("the documentation of container has no options")
    blocks = re.findall(r"^  \w+:\n(?:(?:    .*)?\n)+", found.group(1), re.MULTILINE)
    kept = [block for block in blocks if block.split(":")[0].strip() in container.ENTRY]
    shown = "".join(kept)
    # The longest lines are folded again where four more spaces and "containers[]." make them too long.
    shown = re.sub(r"O\(([a-z_]+)(?![a-z_.]*#)", r"O(containers[].\1", shown)
    return "\n".join(line for raw in shown.rstrip("\n").split("\n") for line in fold("    " + raw if raw else raw))


def fold(line: str) -> list[str]:
    if len(line) <= 120:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + (2 if line.lstrip().startswith("- ") else 0))
    if not line.lstrip().startswith("- ") and re.match(r"\s*\w+: ", line):
        indent += "  "
    cut = line.rfind(" ", 0, 120)
    return [line[:cut], *fold(indent + line[cut + 1 :])]


def module() -> str:
    text = HEAD + options() + "\n" + TAIL
    documented: dict[str, Any] = yaml.safe_load(text.split('r"""\n')[1].split('"""')[0])
    missing = set(container.ENTRY) - set(documented["options"]["containers"]["suboptions"])
    if missing:
        raise SystemExit("not documented: %s" % ", ".join(sorted(missing)))
    return text


if __name__ == "__main__":
    (ROOT / "plugins/modules/containers.py").write_text(module())
