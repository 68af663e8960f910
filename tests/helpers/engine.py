# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine driven as the modules drive it, in directories of its own."""

from __future__ import annotations

import contextlib
import os
import tarfile
from typing import Any, Iterator, Optional

from module_utils._args import around, common, container, events, export, host, image, network, prune, volume
from module_utils._engine.entry import dispatch
from module_utils._engine.paths import Paths

from .target import Target

BUSYBOX = "/bin/busybox"
_TABLES = {
    "container": (container.CONFIG, container.OPERATION),
    "container_commit": (export.CONTAINER_COMMIT,),
    "container_copy": (around.COPY,),
    "container_exec": (container.EXEC,),
    "container_export": (export.CONTAINER_EXPORT,),
    "container_info": (container.INFO,),
    "container_kill": (around.KILL,),
    "container_logs": (container.LOGS,),
    "container_pause": (around.PAUSE,),
    "container_rename": (around.RENAME,),
    "container_restart": (around.RESTART,),
    "container_wait": (around.WAIT,),
    "containers": (container.MANY,),
    "events_info": (events.INFO,),
    "host_info": (host.INFO,),
    "image": (image.IMAGE, image.TRANSPORT),
    "image_export": (export.IMAGE_EXPORT,),
    "image_info": (image.IMAGE_INFO,),
    "image_load": (image.IMAGE_LOAD,),
    "image_push": (image.IMAGE_PUSH, image.TRANSPORT),
    "network": (network.CONFIG, network.OPERATION),
    "network_info": (network.INFO,),
    "prune": (prune.PRUNE,),
    "registry": (image.REGISTRY, image.TRANSPORT),
    "registry_info": (image.REGISTRY_INFO, image.TRANSPORT),
    "volume": (volume.CONFIG, volume.OPERATION),
    "volume_info": (volume.INFO,),
}


class Engine:
    """One engine instance below its own state and run directories; ``close`` takes everything down again.

    ``target``: the machine that it is on, when that is not this one. The first task must bring the engine there."""

    def __init__(self, directory: str, target: Optional[Target] = None) -> None:
        self.target = target or Target()
        self.paths = Paths(directory + "/state", self.target.call("run_directory"))

    def run(self, noun: str, check: bool = False, **params: Any) -> dict[str, Any]:
        """One task: defaults filled in as Ansible does, result as the module returns it."""
        filled = self.filled(noun, **params)
        if self.target.far:
            return dict(self.target.call("dispatch", self.paths.state, noun, filled, check))
        return dispatch(noun, filled, check_mode=check, diff=True)

    def filled(self, noun: str, **params: Any) -> dict[str, Any]:
        """The parameters as Ansible hands them to a module, defaults and all."""
        spec = common.argument_spec(*_TABLES[noun])
        filled = {name: option.get("default") for name, option in spec.items()}
        unknown = set(params) - set(filled)
        if unknown:
            raise AssertionError("no such option: %s" % unknown)
        filled.update(params, state_dir=self.paths.state, run_dir=self.paths.run)
        for name, option in spec.items():
            if option.get("elements") == "dict" and option.get("options") and filled[name]:
                filled[name] = [_complete(option["options"], item) for item in filled[name]]
        return filled

    def busybox(self, name: str = "bb:1", changes: Optional[list[str]] = None) -> dict[str, Any]:
        """A base image out of the distribution's static busybox."""
        path = os.path.dirname(self.paths.state) + "/busybox.tar"
        if not os.path.exists(path):
            busybox_tar(path)
        changes = ["CMD sh"] if changes is None else changes
        return self.run("image", name=name, source="import", path=path, changes=changes)

    def container(self, name: str, check: bool = False, **params: Any) -> dict[str, Any]:
        params.setdefault("image", "bb:1")
        params.setdefault("stop_timeout", 1)
        return self.run("container", check, name=name, **params)

    def exec(self, name: str, *argv: str, **params: Any) -> dict[str, Any]:
        return self.run("container_exec", container=name, argv=list(argv), **params)

    def sh(self, name: str, script: str) -> str:
        result = self.exec(name, "sh", "-c", script)
        if result["rc"]:
            raise AssertionError(
                "%r in %s: rc %s, %s%s" % (script, name, result["rc"], result["stdout"], result["stderr"])
            )
        return str(result["stdout"])

    def inspect(self, name: str) -> dict[str, Any]:
        shown = self.run("container_info", name=name)["container"]
        if shown is None:
            raise AssertionError("no container %s" % name)
        return dict(shown)

    def pid(self, name: str) -> int:
        return int(self.inspect(name)["State"]["Pid"])

    def logs(self, name: str) -> str:
        return str(self.run("container_logs", name=name)["stdout"])

    def close(self) -> None:
        """Remove everything through the engine, end its resident processes, delete the directories."""
        state, run, call = self.paths.state, self.paths.run, self.target.call
        if not self.target.far or call("exists", state + "/engine/current"):
            for shown in self.run("container_info")["containers"]:
                self.run("container", name=shown["Name"][1:], state="absent", force_kill=True, keep_volumes=False)
            for shown in self.run("network_info")["networks"]:
                if shown["Name"] != "bridge":
                    self.run("network", name=shown["Name"], state="absent", force=True)
            call("drop_default_network", state, run)
            call("end_resident", run)
            call("remove_cgroups", state, run)
        call("remove", run)
        call("remove", state)

    def resident(self) -> list[int]:
        """Pids of processes whose command line names this instance's run directory (spawner, resolver, monitors)."""
        return list(self.target.call("resident", self.paths.run))


def _complete(options: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    filled = {**{name: option.get("default") for name, option in options.items()}, **item}
    for name, option in options.items():
        if option.get("elements") == "dict" and option.get("options") and filled[name]:
            filled[name] = [_complete(option["options"], below) for below in filled[name]]
    return filled


def busybox_tar(path: str) -> None:
    """A root file system: busybox, its applets as symlinks, a few directories, passwd and group."""
    import io

    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, kind: bytes, mode: int, data: bytes = b"", link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.linkname, info.mtime = kind, mode, len(data), link, 1_700_000_000
            tar.addfile(info, io.BytesIO(data))

        for name, mode in (
            ("bin", 0o755),
            ("etc", 0o755),
            ("tmp", 0o1777),
            ("root", 0o700),
            ("var", 0o755),
            ("srv", 0o755),
        ):
            add(name, tarfile.DIRTYPE, mode)
        with open(BUSYBOX, "rb") as stream:
            add("bin/busybox", tarfile.REGTYPE, 0o755, stream.read())
        applets = "sh cat echo ls sleep id env pwd mount ps kill wget httpd nslookup ping ip grep head true false touch mkdir stat nc hostname df dd rm test readlink trap wc od ulimit umask date cut seq tty sort awk sed chmod chown ln mknod"  # noqa: E501
        for applet in applets.split():
            add("bin/" + applet, tarfile.SYMTYPE, 0o777, link="busybox")
        add("etc/passwd", tarfile.REGTYPE, 0o644, b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/srv:/bin/sh\n")
        add("etc/group", tarfile.REGTYPE, 0o644, b"root:x:0:\nweb:x:1000:\nstaff:x:50:web\n")
        add("srv/index.html", tarfile.REGTYPE, 0o644, b"hello from the image\n")


@contextlib.contextmanager
def engine(directory: str) -> Iterator[Engine]:
    instance = Engine(directory)
    try:
        yield instance
    finally:
        instance.close()
