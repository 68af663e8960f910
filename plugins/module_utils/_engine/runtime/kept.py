# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one start found out and the next can use. The spawner keeps it, its forks inherit it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ..kernel import devices
from ..kernel.syscalls import Kernel
from ..storage import overlay

MAX_LAYERS = 512
_MAX_PROGRAMS = 64


class Kept:
    """``layers``: open layer mounts by directory, so that containers share their cached pages; ``programs``: compiled
    seccomp filters by profile and capabilities; ``devices``: descriptors of loaded device programs by their code."""

    __slots__ = ("devices", "layers", "programs")

    def __init__(self) -> None:
        self.layers: dict[str, int] = {}
        self.programs: dict[str, Optional[bytes]] = {}
        self.devices: dict[bytes, int] = {}

    def descriptors(self) -> list[int]:
        return [*self.layers.values(), *self.devices.values()]

    def fill(self, kernel: Kernel, run: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """For one container's start. Raises ``WharfError``."""
        for path in [path for path in self.layers if not os.path.exists(path)]:
            self.forget(path)
        for layer in run["layers"]:
            if layer["path"] not in self.layers:
                self.layers[layer["path"]] = overlay.open_layer(kernel, layer["path"], layer["form"])
        self.program(kernel, config)
        rules = (config["linux"].get("resources") or {}).get("devices")
        if rules:
            devices.keep(kernel, devices.from_oci(rules), self.devices)

    def program(self, kernel: Kernel, config: Mapping[str, Any]) -> Optional[bytes]:
        """The compiled seccomp filter; nearly all containers have the same, and compiling takes milliseconds."""
        profile = config["linux"].get("seccomp")
        if not profile:
            return None
        caps = sorted(config["process"].get("capabilities", {}).get("bounding") or ())
        key = json.dumps([profile, caps], sort_keys=True)
        if key not in self.programs:
            from ..kernel import seccomp

            chosen = None if profile.get("defaultProfile") else profile
            self.programs[key] = seccomp.filter_for(chosen, set(caps), kernel.machine)
        return self.programs[key]

    def learn(self, order: Mapping[str, Any], fds: Sequence[int]) -> None:
        """What a start has opened; ``fds``: of the layers, then of the device programs. Takes them over."""
        rest = list(fds)
        for path in order["layers"]:
            fd = rest.pop(0)
            if path in self.layers:  # two starts at once
                os.close(fd)
                continue
            if len(self.layers) >= MAX_LAYERS:
                self.forget(next(iter(self.layers)))
            self.layers[path] = fd
        for code in order["devices"]:
            fd = rest.pop(0)
            if code in self.devices or len(self.devices) >= _MAX_PROGRAMS:
                os.close(fd)
            else:
                self.devices[code] = fd
        for key, program in order["programs"]:
            if len(self.programs) < _MAX_PROGRAMS:
                self.programs[key] = program

    def forget(self, path: str) -> None:
        fd = self.layers.pop(path, None)
        if fd is not None:
            os.close(fd)

    def without_descriptors(self) -> Kept:
        """For a process that has closed them."""
        other = Kept()
        other.programs = self.programs
        return other
