#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_info
version_added: 0.1.0
short_description: Look at containers
description:
  - Return one container, or all.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.INFO
  - wharf.engine._engine
  - wharf.engine._engine.QUERY
  - wharf.engine._engine.FORMAT

options:
  name:
    description: Name or ID of the container. Without it, all containers are returned.
    type: str
  size:
    description:
      - Whether to measure C(SizeRw), the bytes that the container has written, and C(SizeRootFs), these and its image.
        Takes longer, the more files it wrote. Volumes and logs do not count.
    type: bool
    default: false
  changes:
    description:
      - Whether to list C(Changes), what the container changed in its file system, as C(docker diff) does, with
        C(Kind) V(0) for modified, V(1) for added and V(2) for deleted. Files that were opened for writing and are as
        they were do not count.
    type: bool
    default: false
  stats:
    description:
      - Whether to add C(Stats), what a running container uses, in the shape of Docker's stats, with C(cpu_stats),
        C(memory_stats), C(pids_stats), C(blkio_stats) and C(networks). V(null) for one that does not run.
      - Besides, there are C(memory_used), which leaves out what the kernel can drop at once, C(memory_percent) of the
        limit, and with O(stats_interval) C(cpu_percent), where V(100) is one processor.
    type: bool
    default: false
  stats_interval:
    description:
      - Seconds to wait before a second sample is taken, at most V(3600). The first one's processor time is in
        C(precpu_stats). With V(0), there is one sample only.
      - There is one wait, however many containers there are.
    type: float
    default: 0.0
  top:
    description:
      - Whether to add C(Top), the processes of a running container with the host's numbers, as C(docker top) does, with
        C(Titles) and C(Processes). V(null) for one that does not run.
    type: bool
    default: false
  ps_args:
    description:
      - Which columns O(top) shows, as given to C(ps). V(-ef), V(aux), or V(-o) with a list of columns. No program is
        run, so nothing else is understood.
    type: str
    default: -ef
  filters:
    description:
      - List only the containers that C(docker ps --all --filter) would list. Several filters must all match; of several
        values of one filter one must, but of C(label) all.
      - C(name) and C(id) are regular expressions or whole values; C(label) is C(key) or C(key=value), or a dictionary;
        C(status) is V(created), V(restarting), V(running), V(removing), V(paused), V(exited) or V(dead); C(health) is
        V(starting), V(healthy), V(unhealthy) or V(none); C(exited) is an exit code; C(before) and C(since) name a
        container; C(ancestor) names an image, and takes images made from it, too; C(publish) is a port of the host and
        C(expose) one of the container, such as V(80), V(53/udp) or V(8000-8080/tcp); C(network) is a name or ID;
        C(volume) is a volume's name, or a path on either side; C(is-task) is V(false), as nothing here is a task of
        Swarm's.
      - Filters with other names are refused.
      - Mutually exclusive with O(name).
    type: dict
seealso:
  - module: wharf.engine.container
"""

EXAMPLES = r"""
---
- name: Look at one container
  wharf.engine.container_info:
    name: web
  register: web

- name: Say whether it runs
  ansible.builtin.debug:
    msg: "{{ web.container.State.Status if web.exists else 'There is no such container' }}"

- name: Containers that wrote more than 1 GB
  wharf.engine.container_info:
    size: true
    query: "[?SizeRw > `1000000000`].[Name, SizeRw]"

- name: Addresses of all containers in the network shop
  wharf.engine.container_info:
    query: "[?NetworkSettings.Networks.shop].[Name, NetworkSettings.Networks.shop.IPAddress]"

- name: Published ports, one line for each
  wharf.engine.container_info:
    name: web
    format: !unsafe "{{range $p, $conf := .NetworkSettings.Ports}}{{$p}} -> {{(index $conf 0).HostPort}}{{end}}"

- name: What the shop's containers use, measured for two seconds
  wharf.engine.container_info:
    filters:
      label: app=shop
      status: running
    stats: true
    stats_interval: 2
    query: "[].{name: Name, cpu: Stats.cpu_percent, memory: Stats.memory_used}"

- name: Processes with their owners
  wharf.engine.container_info:
    name: web
    top: true
    ps_args: -o pid,user,args
    query: Top.Processes

- name: Names of the containers of the shop that ended with an error
  wharf.engine.container_info:
    filters:
      label: app=shop
      status: exited
      exited: [1, 137]
    format: !unsafe "{{ .Name }}"
"""

RETURN = r"""
---
exists:
  description: Whether there is a container called O(name).
  returned: when O(name) is given
  type: bool
  sample: true
container:
  description:
    - The container in the shape of C(docker inspect), or what O(query) or O(format) made of it. V(null) when there
      is none.
  returned: when O(name) is given
  type: raw
  sample:
    Id: 3f1c2b4a59687786a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f00f1e
    Name: /web
    Image: sha256:0b3b1a1d2a9f3d6d6b5a4c3b2a190817263544536271809f8e7d6c5b4a392817
    State: {Status: running, Running: true, Pid: 4242, ExitCode: 0}
    Config:
      Image: nginx:1.29
      Cmd: [nginx, -g, "daemon off;"]
      Labels: {app: shop}
    HostConfig:
      Memory: 134217728
      RestartPolicy: {Name: unless-stopped, MaximumRetryCount: 0}
    NetworkSettings:
      Networks:
        shop: {IPAddress: 172.18.0.2}
      Ports:
        80/tcp: [{HostIp: 0.0.0.0, HostPort: "8080"}]
containers:
  description: All containers, in the shape of RV(container), or what O(query) or O(format) made of the list.
  returned: when O(name) is not given
  type: raw
  sample: []
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
    run("container_info", container.INFO, mutually_exclusive=[["query", "format"], ["name", "filters"]])


if __name__ == "__main__":
    main()
