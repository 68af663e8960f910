#!/usr/bin/python
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
      name:
        description:
          - Name of the container.
        type: str
        required: true
      image:
        description:
          - Reference or ID of the image.
          - With O(containers[].image), the task describes the container fully, and an option that was left out of the
            task is taken
            back on the container. Without it, the task operates on an existing container and leaves its configuration
            alone.
          - The container is replaced when the reference means another image than the one it was made of.
        type: str
      state:
        description:
          - V(present) makes sure that the container exists as described, whether it runs or not.
          - V(started) makes sure that it runs, too.
          - V(healthy) waits until its health check succeeds. The task fails at once when the container stops or turns
            unhealthy.
          - V(stopped) makes sure that it exists as described and does not run.
          - V(absent) removes it.
        type: str
        choices: [absent, present, healthy, started, stopped]
        default: started
      verify:
        description:
          - Use the image only if its signature says what it should, as with O(wharf.engine.image#module:verify), where
            it
            is described. It holds for an image that is on the target already, too, and a container that exists is not
            changed when its image is refused.
          - It says how this run goes about it, and never makes a difference between the task and the container.
        type: dict
        suboptions:
          key:
            description: The public key as PEM text, or the path of a file on the target with it.
            type: str
            required: true
          identity:
            description: The reference that the signature must name, when it is not O(containers[].image).
            type: str
      recreate:
        description:
          - Replace the container even if nothing differs.
        type: bool
        default: false
      update:
        description:
          - How a running container is replaced. With V(start_first) the new one starts and, with a health check, turns
            healthy while the old one serves; then published ports switch to it in one step, and the old one is asked to
            stop. Where the old one listens at a published TCP port, the new one gets up to 10 seconds to listen there,
            too,
            before they switch. With V(stop_first) the old one stops before the new one starts.
          - Without it, V(start_first) is chosen unless both would write to the same volume or bind, have the same fixed
            address, or share another network namespace. The action says which it was, and why.
          - V(start_first) with a fixed address is refused.
          - Either way the old container runs on when the new one does not come up.
        type: str
        choices: [start_first, stop_first]
      restart:
        description:
          - Restart the container, unless this run started it anyway.
        type: bool
        default: false
      force_kill:
        description:
          - Kill the container instead of asking it to stop.
        type: bool
        default: false
        aliases: [forcekill]
      kill_signal:
        description:
          - The signal that O(containers[].force_kill) sends. V(KILL), unless given.
        type: str
      keep_volumes:
        description:
          - Keep the anonymous volumes of a container that is removed. Named volumes are always kept.
        type: bool
        default: true
      healthy_wait_timeout:
        description:
          - How many seconds O(containers[].state=healthy) waits. The task fails after that.
        type: float
        default: 300
      paused:
        description:
          - Whether all its processes stand still. Without it, a container that is paused stays so.
        type: bool
      stop_timeout:
        description:
          - How many seconds a container has to stop after the stop signal before it is killed. V(-1) waits as long as
            it
            takes.
          - It never makes a difference between the task and the container.
        type: int
      command:
        description:
          - The command to run, a list of words or a string that is split into words as a shell would, without expanding
            anything. The image has the default.
          - Changing it replaces the container.
        type: raw
      entrypoint:
        description:
          - The program that O(containers[].command) is handed to. The image has the default.
          - Changing it replaces the container.
        type: list
        elements: str
      env:
        description:
          - Environment variables, beside those of the image. Quote numbers and booleans, so that YAML does not change
            how
            they are written.
          - Changing it replaces the container.
        type: dict
      env_file:
        description:
          - A file on the target with more of them, one C(NAME=VALUE) a line. O(containers[].env) wins.
        type: path
      labels:
        description:
          - Labels, beside those of the image.
          - Changed on the running container.
        type: dict
      hostname:
        description:
          - Host name inside the container. Its short ID, unless given.
          - Changing it replaces the container.
        type: str
      domainname:
        description:
          - Domain name inside the container.
          - Changing it replaces the container.
        type: str
      user:
        description:
          - Who runs the command, C(user[:group]) by name or number as the container knows them.
          - Changing it replaces the container.
        type: str
      groups:
        description:
          - More groups for that user, by name or number as the container knows them.
          - Changing it replaces the container.
        type: list
        elements: str
      working_dir:
        description:
          - Directory to run the command in. Made when it is missing.
          - Changing it replaces the container.
        type: str
      tty:
        description:
          - Give the command a terminal.
          - Changing it replaces the container.
        type: bool
      interactive:
        description:
          - Keep its standard input open.
          - Changing it replaces the container.
        type: bool
      init:
        description:
          - Run a small init as PID 1 that forwards signals and collects orphaned processes.
          - Changing it replaces the container.
        type: bool
      network_mode:
        description:
          - V(bridge) is the default network, V(host) the network of the target itself, V(none) no network but loopback,
            V(container:NAME) the network of another container, and anything else the name of a network.
          - Without it, the first of O(containers[].networks) counts, or else V(bridge).
          - Changing it replaces the container.
        type: str
      networks:
        description:
          - Networks to connect the container to.
          - Changed on the running container.
        type: list
        elements: dict
        suboptions:
          name:
            description: Name of the network.
            type: str
            required: true
          aliases:
            description: More names that the network's other containers find this one by.
            type: list
            elements: str
          ipv4_address:
            description: The container's IPv4 address in the network. A free one, unless given.
            type: str
          ipv6_address:
            description: The container's IPv6 address in the network. A free one, unless given.
            type: str
          mac_address:
            description: The MAC address of its interface.
            type: str
          links:
            description:
              - Other containers on this network that this one finds by another name, each as C(CONTAINER[:ALIAS]).
            type: list
            elements: str
          driver_opts:
            description:
              - Options of this one interface. There is C(com.docker.network.endpoint.ifname), its name in the
                container.
            type: dict
          gw_priority:
            description:
              - The network with the highest number gives the container its default route. Without numbers, or with the
                same, it is the first by name that has both address families.
            type: int
      published_ports:
        description:
          - Ports of the container that the host passes on, each as C([[ADDRESS:]PORT:]CONTAINER_PORT[/PROTOCOL]).
            Ranges
            such as V(8000-8009:9000-9009) are possible, IPv6 addresses stand in brackets.
          - Without a host port, the engine chooses a free one and keeps it.
          - Changed on the running container.
        type: list
        elements: str
        aliases: [ports]
      exposed_ports:
        description:
          - Ports that the container says it listens on, each as C(PORT[/PROTOCOL]). Information only.
          - Changed on the running container.
        type: list
        elements: str
        aliases: [exposed, expose]
      dns_servers:
        description:
          - DNS servers to use instead of those of the host.
          - Changed on the running container.
        type: list
        elements: str
      dns_opts:
        description:
          - Options for C(resolv.conf).
          - Changed on the running container.
        type: list
        elements: str
      dns_search_domains:
        description:
          - Search domains for C(resolv.conf).
          - Changed on the running container.
        type: list
        elements: str
      etc_hosts:
        description:
          - More names for C(/etc/hosts), each with its address. The address V(host-gateway) is the host as the
            container
            sees it.
          - Changed on the running container.
        type: dict
      links:
        description:
          - Other containers on the same network that this one finds by another name, each as C(CONTAINER[:ALIAS]). On
            networks other than the default one all containers find each other by name without it.
          - Changed on the running container.
        type: list
        elements: str
      mac_address:
        description:
          - The MAC address of its interface in the first network. The same as O(containers[].networks[].mac_address)
            there.
        type: str
      publish_all_ports:
        description:
          - Publish every exposed port of image and task on a free port of the host.
          - Changed on the running container.
        type: bool
      default_host_ip:
        description:
          - Address that O(containers[].published_ports) without one are published on. All addresses, unless given.
        type: str
      volumes:
        description:
          - Mounts in short form, each as C([SOURCE:]TARGET[:FLAGS]). A source that begins with C(/) is a directory or
            file on the target, which is made as a directory when missing. Any other source is the name of a volume.
            Without a source the volume is anonymous.
          - Flags are V(ro), V(rw), V(nocopy), and the propagations V(private), V(rprivate), V(shared), V(rshared),
            V(slave), V(rslave), separated by commas.
          - Changed on the running container where the kernel allows it. What would cover something else, stay at its
            target in another form, or need a new directory in a read-only root replaces the container.
        type: list
        elements: str
      mounts:
        description:
          - Mounts in long form. Together with O(containers[].volumes) and O(containers[].tmpfs) they are one list, so
            moving an entry from one form
            to the other changes nothing.
          - Changed as O(containers[].volumes) are.
        type: list
        elements: dict
        suboptions:
          target:
            description: Path in the container.
            type: str
            required: true
          source:
            description:
              - Path on the target for O(containers[].mounts[].type=bind), which must exist. Name of a volume for
                O(containers[].mounts[].type=volume); without one the volume is anonymous. Reference or ID of an image
                for
                O(containers[].mounts[].type=image); it must be on the target, is never pulled, and cannot be removed
                meanwhile. When the
                reference means another image than before, the container is replaced.
            type: str
          type:
            description: What is mounted. An V(image) can only be read.
            type: str
            choices: [bind, image, tmpfs, volume]
            default: volume
          read_only:
            description: Mount it read-only, with everything mounted below it.
            type: bool
          propagation:
            description: How mounts made later travel between host and container. For
              O(containers[].mounts[].type=bind).
            type: str
            choices: [private, rprivate, shared, rshared, slave, rslave]
          no_copy:
            description:
              - Leave a new volume empty instead of filling it with what the image has at
                O(containers[].mounts[].target). For
                O(containers[].mounts[].type=volume).
            type: bool
          tmpfs_size:
            description: Largest size, such as V(64m). For O(containers[].mounts[].type=tmpfs).
            type: str
          tmpfs_mode:
            description: File mode of its root in octal, quoted, such as V("1777"). For
              O(containers[].mounts[].type=tmpfs).
            type: str
          tmpfs_options:
            description:
              - Further options, each a dictionary with one key, such as V(exec) with no value or V(uid) with a number.
                For
                O(containers[].mounts[].type=tmpfs).
            type: list
            elements: dict
          subpath:
            description:
              - Mount only this file or directory of the volume or image. It must exist when the container starts, and
                links in it do not lead out. For O(containers[].mounts[].type=volume) and
                O(containers[].mounts[].type=image).
            type: str
          labels:
            description: Labels of a volume that does not exist yet. For O(containers[].mounts[].type=volume).
            type: dict
          volume_driver:
            description: There is V(local). For O(containers[].mounts[].type=volume).
            type: str
          volume_options:
            description: Refused when not empty, because V(local) takes none. For O(containers[].mounts[].type=volume).
            type: dict
          create_mountpoint:
            description: Make O(containers[].mounts[].source) a directory when there is nothing. For
              O(containers[].mounts[].type=bind).
            type: bool
          non_recursive:
            description: Leave out what is mounted below O(containers[].mounts[].source). For
              O(containers[].mounts[].type=bind).
            type: bool
          read_only_non_recursive:
            description: Refused. What is mounted below a read-only bind is read-only, too.
            type: bool
          read_only_force_recursive:
            description: It is always so. Accepted for playbooks that have it.
            type: bool
          consistency:
            description: Without effect on Linux. Accepted for playbooks that have it.
            type: str
            choices: [cached, consistent, default, delegated]
      tmpfs:
        description:
          - Mounts of memory in short form, each as C(TARGET[:OPTION,...]) with options such as V(size=64m),
            V(mode=1770),
            V(exec).
          - Changed as O(containers[].volumes) are.
        type: list
        elements: str
      volumes_from:
        description:
          - Containers whose volumes and binds this one gets at the same targets, each as C(NAME[:ro]). What the task
            mounts there itself comes first.
          - Changed as O(containers[].volumes) are.
        type: list
        elements: str
      volume_driver:
        description:
          - There is one, V(local). Anything else is refused.
        type: str
      secrets:
        description:
          - Files on a small read-only memory file system at C(/run/secrets), for what belongs neither in the
            environment nor in the image. Their content appears in no log, diff, inspection or database; on the target
              it is kept in a file that
            only root can read, so that the container can be started again.
          - Changing it replaces the container.
        type: list
        elements: dict
        suboptions:
          name:
            description: Name of the secret, and of the file.
            type: str
            required: true
          content:
            description: What is in the file. One of O(containers[].secrets[].content) and
              O(containers[].secrets[].source) is needed.
            type: str
          source:
            description: A file on the target to take the content from.
            type: path
          target:
            description: Path in the container, below C(/run/secrets). C(/run/secrets/NAME), unless given.
            type: str
          mode:
            description: File mode in octal, quoted.
            type: str
            default: "0400"
          uid:
            description: Owner of the file by number. The container's user, unless given.
            type: int
          gid:
            description: Group of the file by number. That of the container's user, unless given.
            type: int
      read_only:
        description:
          - Make the root file system read-only.
          - Changing it replaces the container.
        type: bool
      shm_size:
        description:
          - Size of C(/dev/shm), such as V(64m), which is also the default.
          - Changing it replaces the container.
        type: str
      devices:
        description:
          - Devices of the host, each as C(HOST[:CONTAINER[:PERMISSIONS]]) with permissions of V(r), V(w), V(m).
          - Changing it replaces the container.
        type: list
        elements: str
      device_requests:
        description:
          - What Docker passes to a vendor's hook. Refused with the name of the driver, because a container without the
            GPU
            that it asked for is not what was asked for. Use O(containers[].devices).
        type: list
        elements: dict
        suboptions:
          capabilities:
            description: What the device must be able to do.
            type: list
            elements: list
          count:
            description: How many.
            type: int
          device_ids:
            description: Which ones.
            type: list
            elements: str
          driver:
            description: Whose hook it is for.
            type: str
          options:
            description: For the hook.
            type: dict
      device_cgroup_rules:
        description:
          - Rules for devices that the container may make and use, each as C(TYPE MAJOR:MINOR ACCESS), such as V(c 42:*
            rwm).
          - Changing it replaces the container.
        type: list
        elements: str
      memory:
        description:
          - Largest amount of memory, such as V(512m) or V(2g).
          - Changed on the running container.
        type: str
      memory_swap:
        description:
          - Largest amount of memory and swap together. V(-1) is unlimited. Twice O(containers[].memory), unless given.
          - Changed on the running container.
        type: str
      memory_reservation:
        description:
          - Memory that the kernel tries to leave the container when memory is short.
          - Changed on the running container.
        type: str
      cpus:
        description:
          - How many processors it may keep busy, such as V(1.5).
          - Changed on the running container.
        type: float
      cpu_shares:
        description:
          - Weight against other containers when processors are short, 2 to 262144. 1024 is what a container has unless
            given.
          - Changed on the running container.
        type: int
      cpuset_cpus:
        description:
          - Processors it may run on, such as V(0-3,5).
          - Changed on the running container.
        type: str
      cpuset_mems:
        description:
          - Memory nodes it may use, such as V(0-1).
          - Changed on the running container.
        type: str
      pids_limit:
        description:
          - Largest number of processes and threads. V(-1) is unlimited.
          - Changed on the running container.
        type: int
      cpu_period:
        description:
          - Length in microseconds of the period that O(containers[].cpu_quota) counts for, 1000 to 1000000.
            O(containers[].cpus) says both at once.
          - Changed on the running container.
        type: int
      cpu_quota:
        description:
          - Microseconds of processor time in each O(containers[].cpu_period), which is 100000 unless given.
          - Changed on the running container.
        type: int
      blkio_weight:
        description:
          - Weight against other containers when a disk is busy, 10 to 1000. It has an effect where the kernel has a
            scheduler that weighs.
          - Changed on the running container.
        type: int
      device_read_bps:
        description:
          - Largest rate at which the container may read from a device of the host.
          - Changed on the running container.
        type: list
        elements: dict
        suboptions:
          path:
            description: The block device on the target.
            type: str
            required: true
          rate:
            description: Bytes a second, such as V(1m).
            type: str
            required: true
      device_write_bps:
        description:
          - Largest rate at which the container may write to a device of the host.
          - Changed on the running container.
        type: list
        elements: dict
        suboptions:
          path:
            description: The block device on the target.
            type: str
            required: true
          rate:
            description: Bytes a second, such as V(1m).
            type: str
            required: true
      device_read_iops:
        description:
          - Largest rate at which the container may read from a device of the host.
          - Changed on the running container.
        type: list
        elements: dict
        suboptions:
          path:
            description: The block device on the target.
            type: str
            required: true
          rate:
            description: Operations a second.
            type: int
            required: true
      device_write_iops:
        description:
          - Largest rate at which the container may write to a device of the host.
          - Changed on the running container.
        type: list
        elements: dict
        suboptions:
          path:
            description: The block device on the target.
            type: str
            required: true
          rate:
            description: Operations a second.
            type: int
            required: true
      memory_swappiness:
        description:
          - How willingly the kernel swaps the container's memory out, 0 to 100. On targets with cgroup v1 only.
          - Changed on the running container.
        type: int
      kernel_memory:
        description:
          - Refused. Linux has had no limit for kernel memory alone since 5.16, and O(containers[].memory) counts it.
        type: str
      oom_killer:
        description:
          - V(true) disables the kernel's killer for the container, which then stands still when O(containers[].memory)
            is used up.
            The name and its meaning are those of C(docker_container). On targets with cgroup v1 only.
          - Changed on the running container.
        type: bool
      oom_score_adj:
        description:
          - How willingly the kernel kills it when memory is out, -1000 to 1000.
          - Changing it replaces the container.
        type: int
      capabilities:
        description:
          - Capabilities beside the default ones, with or without C(CAP_). V(ALL) is all of them.
          - Changing it replaces the container.
        type: list
        elements: str
      cap_drop:
        description:
          - Capabilities to take away. V(ALL) is all of them.
          - Changing it replaces the container.
        type: list
        elements: str
      privileged:
        description:
          - Give the container everything that root on the host can do, and all devices. It is no protection for the
            host
            any more.
          - Changing it replaces the container.
        type: bool
      security_opts:
        description:
          - More about what it may do. V(no-new-privileges), V(seccomp=unconfined), V(seccomp=PATH) with a profile in
            Docker's format on the target, or V(seccomp=JSON) with the profile itself, V(apparmor=PROFILE),
            V(apparmor=unconfined), V(systempaths=unconfined), V(proc-opts=OPTIONS) for how C(/proc) is mounted.
          - The container keeps the profile as it was when the task ran. Another profile at the same path is a change.
          - V(label=disable) is what there is, as the engine sets no SELinux labels. Other labels are refused where
            SELinux
            is on, and ignored with a warning elsewhere.
          - Changing it replaces the container.
        type: list
        elements: str
      ulimits:
        description:
          - Resource limits of its processes, each as C(NAME:SOFT[:HARD]).
          - Changed on the running container, on all its processes. Where the engine lacks C(CAP_SYS_RESOURCE), raising
            a
            hard limit replaces the container.
        type: list
        elements: str
      sysctls:
        description:
          - Kernel settings of its own namespaces. Settings of the whole host are refused.
          - Changing it replaces the container.
        type: dict
      umask:
        description:
          - File mode bits that its processes take away from new files, in octal, quoted. V("0022"), unless given.
          - Changing it replaces the container.
        type: str
      timezone:
        description:
          - Name of a time zone that the target knows, such as V(Europe/Berlin), or V(local) for that of the target. It
            becomes C(/etc/localtime) in the container.
          - Changing it replaces the container.
        type: str
      cgroup_parent:
        description:
          - Path of the cgroup to put the container's below. The engine's own, unless given.
          - Changing it replaces the container.
        type: str
      cgroupns_mode:
        description:
          - Whether it sees the cgroups of the target, V(host), or its own only, V(private), which is what it does
            unless given.
          - Changing it replaces the container.
        type: str
        choices: [host, private]
      ipc_mode:
        description:
          - V(private) or V(shareable), its own shared memory and queues, which is what it has unless given. V(none),
            the same without C(/dev/shm). V(host), those of the target. V(container:NAME), those of another container.
          - Changing it replaces the container.
        type: str
      pid_mode:
        description:
          - V(host) shows it the processes of the target, V(container:NAME) those of another container.
          - Changing it replaces the container.
        type: str
      uts:
        description:
          - V(host) gives it the host name of the target.
          - Changing it replaces the container.
        type: str
      userns_mode:
        description:
          - Whose user and group IDs its own are. V(host), those of the target, unless given.
          - V(auto) reserves 65536 IDs of the target for it alone, V(auto:size=N) another number. Root in the container
            is
            nobody on the target then, with capabilities that count for the container's own things only. The image,
            volumes
            and binds show the IDs they have on the disk, and a new container may have another range. IDs are taken from
            the lines of the user C(wharf) in C(/etc/subuid) and C(/etc/subgid), if there are such lines, and are free
            again when the container is removed.
          - V(keep-id) changes no ID. Root in the container is root as far as files are concerned, but its capabilities
            count for the container's own things only.
          - A bind or volume on a file system that cannot be mounted with other IDs is refused. Where image layers
            cannot,
            the image is copied for the container when it starts first.
          - Cannot be combined with O(containers[].privileged), O(containers[].network_mode=host) and
            O(containers[].pid_mode=host).
          - Changing it replaces the container.
        type: str
      runtime:
        description:
          - Refused. The engine is its own runtime.
        type: str
      storage_opts:
        description:
          - V(size) is how much the container may write to its root file system, such as V(10g); writing more fails as
            on
            a full disk. What the image holds, volumes, and logs are not counted.
          - Needs project quotas on the file system that holds the engine's state. That is xfs mounted with C(pquota),
            or
            ext4 with the feature C(project) mounted with C(prjquota). Refused elsewhere, and anything but V(size)
            everywhere.
          - Changed on the running container, and so is none where there was one; the first size replaces the container.
        type: dict
      platform:
        description:
          - Which of an image's platforms is meant, as C(OS[/ARCHITECTURE[/VARIANT]]). That of the target, unless given.
          - The container is replaced when this means another image.
        type: str
      auto_remove:
        description:
          - Remove the container and its anonymous volumes when it has ended. Not together with
            O(containers[].restart_policy).
          - Changed on the running container.
        type: bool
      restart_policy:
        description:
          - When the container is started again after it ended. V(always) and V(unless-stopped) also start it after a
            reboot of the host, the latter unless it had been stopped.
          - Changed on the running container.
        type: str
        choices: ["no", always, on-failure, unless-stopped]
      restart_retries:
        description:
          - How often V(on-failure) tries. Without it there is no end.
          - Changed on the running container.
        type: int
      stop_signal:
        description:
          - Signal that asks the container to stop. The image has the default, or else it is V(TERM).
          - Changed on the running container.
        type: str
      healthcheck:
        description:
          - How to tell that it works. Parts that are not given are the image's.
          - Changed on the running container.
        type: dict
        suboptions:
          test:
            description:
              - A list that begins with V(CMD) or V(CMD-SHELL), or V([NONE]) for none, or a string for a shell.
              - Without it, the image's check is used, with what else is given here.
            type: raw
          test_cli_compatible:
            description:
              - With V(false) and without O(containers[].healthcheck.test), there is no health check, as with
                C(docker_container).
            type: bool
          interval:
            description: Time between two checks, such as V(30s) or V(1m30s).
            type: str
          timeout:
            description: Time after which a check counts as failed.
            type: str
          start_period:
            description: Time after the start in which failures don't count.
            type: str
          start_interval:
            description: Time between two checks during O(containers[].healthcheck.start_period).
            type: str
          retries:
            description: How many failures in a row make it unhealthy.
            type: int
      log_driver:
        description:
          - Where its output goes. V(json-file) keeps it in Docker's format, V(local) in a more compact one, both for
            M(wharf.engine.container_logs). V(journald) sends it to systemd-journald, V(syslog) to a syslog daemon,
            here or
            elsewhere, V(none) throws it away.
          - A log that does not take more, because the disk is full or the daemon is down, makes the container wait
            when it
            writes. Nothing of its output is lost meanwhile, and C(State.Error) says so.
          - Changed on the running container. What was written before a change between V(json-file) and V(local) can
            still
            be read.
        type: str
        choices: [json-file, local, journald, syslog, none]
      log_options:
        description:
          - Options of the O(containers[].log_driver), with Docker's names. Values are strings, so V("true") and V("3")
            are quoted.
          - C(max-size), C(max-file) and C(compress) are for V(json-file), where they are unlimited, V(1) and V(false)
            by
            default, and for V(local), where they are V(20m), V(5) and V(true). A file that is full is set aside, and
            with
            C(compress) made a gzip file.
          - C(labels), C(env), both lists with commas, C(labels-regex) and C(env-regex) choose labels and variables of
            the
            container that go along, as C(attrs) with V(json-file) and as fields with V(journald).
          - C(tag) names the container to V(journald) and V(syslog), and is an attribute with V(json-file). It is a
            template
            in Go's language over C(.ID), C(.FullID), C(.Name), C(.ImageID), C(.ImageFullID), C(.ImageName),
            C(.Command),
            C(.Hostname), C(.DaemonName), C(.ContainerLabels) and C(.ContainerEnv). The default is the short ID.
          - C(syslog-address) is C(tcp://HOST:PORT), C(udp://HOST:PORT), C(unix://PATH) or C(unixgram://PATH), the
            host's
            own daemon by default; C(syslog-facility) a name or number, C(daemon) by default; C(syslog-format) one of
            C(rfc3164), C(rfc5424), C(rfc5424micro).
          - With C(mode) V(non-blocking) the container never waits for its log. What the log does not take is kept up to
            C(max-buffer-size), V(1m) by default, beyond which the oldest lines are given up.
          - Changed on the running container.
        type: dict
        aliases: [log_opt]

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
