#!/usr/bin/python
# Copyright: (c) 2026, The wharf.engine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: image
version_added: 0.1.0
short_description: Manage images
description:
  - Pull images from registries, load them from archives, import them from file system archives, and remove them.
  - In check mode the registry is asked what a pull would bring, and nothing is downloaded.
author:
  - The wharf.engine authors (@wharf-engine)
extends_documentation_fragment:
  - wharf.engine._attributes
  - wharf.engine._attributes.STATE
  - wharf.engine._engine
  - wharf.engine._engine.TRANSPORT

options:
  name:
    description:
      - Reference of the image, such as V(nginx:1.29), V(ghcr.io/acme/shop@sha256:...) or
        V(registry.example.com:5000/shop). Without a registry it is on V(docker.io), without a tag it is V(latest),
        as with Docker.
      - With O(state=absent) also an image ID.
    type: str
    required: true
  state:
    description:
      - With V(present) the image is on the target.
      - With V(absent) the reference is removed, and the image with its last reference. An image in use by a container
        is not removed unless O(force=true) is given.
    type: str
    choices: [absent, present]
    default: present
  source:
    description:
      - Where the image comes from. V(pull) takes it from a registry, V(load) from the image archive or OCI layout at
        O(path), V(import) makes it from the root file system archive at O(path).
      - With V(controller), from the image archive or OCI layout at O(path) on the controller. The target tells which
        layers it lacks, and only those are sent, through Ansible's connection; it needs no registry. Not with C(async).
    type: str
    choices: [pull, load, import, controller]
    default: pull
  path:
    description:
      - For O(source=load) and O(source=controller), what C(docker save), C(podman save), C(skopeo) or
        M(wharf.engine.image_export) wrote - a docker-archive or oci-archive, plain or compressed with gzip, bzip2, xz
        or zstd - or the directory of an OCI layout or of C(skopeo)'s C(dir:). The image called O(name) is taken from
        it, or its only image, which is called O(name) then whatever the archive calls it. When O(name) is another
        image's name now, RV(actions[].detail) says so in C(replaces).
      - For O(source=controller), a relative path is looked for where the C(copy) module looks for its C(src), in
        C(files) of the role or beside the playbook.
      - For O(source=import), a tar archive of a root file system on the target, plain or compressed with gzip,
        bzip2 or xz.
      - The same archive with the same O(changes) always gives the same image ID, so importing it again changes
        nothing.
    type: path
  changes:
    description:
      - For O(source=import), the image's configuration as Dockerfile instructions. C(CMD), C(ENTRYPOINT), C(ENV),
        C(EXPOSE), C(HEALTHCHECK), C(LABEL), C(STOPSIGNAL), C(USER), C(VOLUME) and C(WORKDIR) are understood.
    type: list
    elements: str
  pull:
    description:
      - With V(missing) the registry is only asked when the image is not on the target.
      - With V(always) it is asked every time, and the image is pulled if the registry's is another one.
    type: str
    choices: [always, missing]
    default: missing
  platform:
    description:
      - Platform of the image, such as V(linux/arm64/v8). The target's own, unless given.
    type: str
  tags:
    description:
      - Further references to the image, such as V(registry.example.com/shop:1.2). Each is a full reference, with the
        same defaults as O(name).
      - The list is complete. A reference that was in it the last time and is not any more is removed, unless it names
        another image by now. With O(state=absent) they are removed together with O(name).
    type: list
    elements: str
  verify:
    description:
      - Take the image only if its signature says what it should. Checked against the registry before a layer is
        downloaded, in check mode, too. An image that is on the target already is checked by the digest it was pulled
        under; what was verified once is not asked for again.
      - Read are the signatures of C(cosign sign --key), under cosign's tag C(sha256-<hex>.sig) or as a referrer of the
        image, and Sigstore bundles (version 0.3) with a key. What must be signed is the digest that O(name) leads to;
        for an image of several platforms, the index. No transparency log is asked.
      - Keyless signatures, by a certificate, are refused. So is an image without a signature, with an altered one, with
        one by another key, and with one that is another image's. RV(error.reason) tells which.
      - Only for O(source=pull). Needs no program on the target.
    type: dict
    suboptions:
      key:
        description:
          - The public key as PEM text, or the path of a file on the target with it. ECDSA on P-256, P-384 or P-521,
            RSA from 2048 bits (PKCS #1 v1.5), or Ed25519.
          - Several keys may follow one another, for the time in which one takes over from another. A signature by any
            of them is enough.
        type: str
        required: true
      identity:
        description:
          - The reference that the signature must name, when it is not O(name); such as the repository that a mirrored
            image was signed in. With a tag, the signature must name that tag.
          - Without it, the signature must name the repository of O(name), and no other tag than that of O(name).
            Sigstore bundles name no repository. They are taken without O(verify.identity), and refused with it.
        type: str
  force:
    description:
      - With O(state=absent), remove the image even if it has other references or a container uses it. Such a
        container keeps running.
      - With O(source=import), import the archive even if the image exists.
    type: bool
    default: false
  timeout:
    description: How many seconds the registry may keep silent before the task fails.
    type: float
    default: 60
seealso:
  - module: wharf.engine.image_export
  - module: wharf.engine.image_info
  - module: wharf.engine.registry
"""

EXAMPLES = r"""
---
- name: Pull an image unless it is there
  wharf.engine.image:
    name: docker.io/library/nginx:1.29

- name: Follow a tag
  wharf.engine.image:
    name: registry.example.com/shop:stable
    pull: always

- name: Make an image from a root file system
  wharf.engine.image:
    name: base:latest
    source: import
    path: /srv/rootfs.tar
    changes:
      - CMD ["/bin/sh"]
      - ENV LANG=C.UTF-8

- name: Load what docker save wrote
  wharf.engine.image:
    name: shop:2.1
    source: load
    path: /srv/images/shop.tar.gz

- name: Bring an image to hosts that reach no registry
  wharf.engine.image:
    name: shop:2.1
    source: controller
    path: images/shop

- name: Give an image the name under which it is pushed
  wharf.engine.image:
    name: base:latest
    source: import
    path: /srv/rootfs.tar
    tags:
      - registry.example.com/base:latest

- name: Take an image only with our signature
  wharf.engine.image:
    name: registry.example.com/shop:2.1
    verify:
      key: "{{ lookup('ansible.builtin.file', 'cosign.pub') }}"

- name: Take a mirrored image that was signed where it comes from
  wharf.engine.image:
    name: mirror.example.com/base:12
    verify:
      key: /etc/keys/vendor.pub
      identity: registry.vendor.example/base

- name: Remove an image
  wharf.engine.image:
    name: base:latest
    state: absent
"""

RETURN = r"""
---
image:
  description: The image in the shape of C(docker image inspect). V(null) when there is none.
  returned: success
  type: dict
  sample:
    Architecture: amd64
    Config:
      Cmd: [nginx, -g, "daemon off;"]
      Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
      ExposedPorts: {"80/tcp": {}}
    Created: "2026-11-01T12:00:00Z"
    Id: sha256:0b3b1a1d2a9f3d6d6b5a4c3b2a190817263544536271809f8e7d6c5b4a392817
    Os: linux
    RepoDigests: ["docker.io/library/nginx@sha256:1d2c3b4a59687786a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f00f1e"]
    RepoTags: ["nginx:1.29"]
    RootFS:
      Layers: ["sha256:9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0"]
      Type: layers
    Size: 192000000
actions:
  description:
    - What was done, or in check mode what would be done, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    how:
      description:
        - How the difference is made good. V(create), V(remove), V(replace), V(live) (the existing object is changed),
          V(start), V(stop), V(pull), V(load), V(import), V(tag), V(untag) or V(disconnect).
      type: str
      sample: live
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
        - The reason, in a few words. V(asked) means that the task asks for something else than last time, V(drift)
          that it does not, and the host has something else.
      type: str
      sample: asked
    detail:
      description:
        - More about it, such as the option with its values before and after.
        - Of a pull, C(digest), C(received) (bytes), C(layers_reused) and C(seconds) of each phase, and with O(verify)
          what it was C(verified) by.
      type: dict
      sample: {"option": "memory", "before": 67108864, "after": 134217728}
error:
  description:
    - What went wrong, for playbooks to act on. RV(msg) says it in a sentence.
  returned: failure
  type: dict
  contains:
    kind:
      description:
        - The kind of failure, one of a fixed set, such as V(usage), V(not_found), V(conflict), V(in_use), V(kernel),
          V(disk_full), V(start), V(unhealthy), V(registry), V(auth), V(integrity), V(untrusted), V(timeout),
          V(internal).
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
    reason:
      description:
        - Why O(verify) refused the image. V(unsigned), V(key) (signed by others only), V(altered), V(other_image),
          V(identity) (signed as something else), V(keyless), V(malformed), or V(local) (the image on the target came
          from no registry).
      returned: when RV(error.kind) is V(untrusted)
      type: str
      sample: unsigned
msg:
  description: What went wrong, on what, and why, in a sentence.
  returned: failure
  type: str
  sample: "published_ports[0]: 127.0.0.1:8080/tcp is in use by container web"
"""

from ansible_collections.wharf.engine.plugins.module_utils._args import image
from ansible_collections.wharf.engine.plugins.module_utils._delivery import run


def main() -> None:
    run(
        "image",
        image.IMAGE,
        image.TRANSPORT,
        required_if=[
            ("source", "import", ("path",)),
            ("source", "load", ("path",)),
            ("source", "controller", ("path",)),
        ],
    )


if __name__ == "__main__":
    main()
