# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options and requirements that all modules share."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  state_dir:
    description:
      - Where the engine keeps images, containers, volumes and its own code on the target.
      - Different directories are different engines that know nothing of each other. Set it for a whole play with
        C(module_defaults) and C(group/wharf.engine.all).
    type: path
    default: /var/lib/wharf
  run_dir:
    description:
      - Where the engine keeps sockets and other things that end with a reboot. It must be on a file system that is
        empty after a reboot, and its path should be short.
      - Give every O(state_dir) a O(run_dir) of its own.
    type: path
    default: /run/wharf
requirements:
  - On the target, Linux 5.10 or newer, Python 3.9 or newer, and root (C(become)). Nothing needs to be installed
    there.
  - On the controller, the libraries pinned in the collection's C(requirements.txt), in the Python that runs Ansible.
notes:
  - The first task on a target brings the engine there; later tasks find it by its content hash.
  - Tasks are faster with C(pipelining) enabled.
"""

    # Options for talking to a registry.
    TRANSPORT = r"""
options:
  validate_certs:
    description:
      - Whether the registry's TLS certificate must be valid.
      - Registries on a loopback address are also tried without TLS, as Docker does.
    type: bool
    default: true
  ca_path:
    description:
      - A PEM file with certificates to trust for registries, on the target, instead of the system's.
    type: path
"""

    # Shaping what an info module returns with a template.
    FORMAT = r"""
options:
  format:
    description:
      - A template in the language of C(docker inspect --format), which is Go's text/template with Docker's functions,
        for instance C({{ json .Mounts }}). Every object is replaced with the text that the template makes of it.
      - V(json) is the whole object as compact JSON.
      - In a playbook, mark the text with C(!unsafe), or Ansible takes it for Jinja.
      - Mutually exclusive with O(query).
    type: str
    version_added: 0.1.0
"""

    # Filtering what an info module returns.
    QUERY = r"""
options:
  query:
    description:
      - A JMESPath expression applied to the answer on the target, so that only what you ask for travels.
    type: str
"""
