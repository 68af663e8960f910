# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The image config: checked once when it comes in, so that nobody later asks what type a field has."""

from __future__ import annotations

import hashlib
from typing import Any, NoReturn, Optional

from ..errors import RegistryError
from .manifest import load_json
from .reference import is_digest

CONFIG_LIMIT = 8 << 20

_STRINGS = ("User", "WorkingDir", "StopSignal")
_LISTS = ("Env", "Entrypoint", "Cmd", "OnBuild", "Shell")
_SETS = ("ExposedPorts", "Volumes")


def parse_config(data: bytes, *, layers: Optional[int] = None, subject: str = "image") -> dict[str, Any]:
    """The OCI (or Docker) image config as a dict in which ``config`` is always an object, and whose fields have the
    type the specification gives them or are absent (``null`` counts as absent).

    Entries of ``Env`` without a name and ``=`` are dropped: on a command line such an entry means "inherit it", and an
    image must not be able to ask for the host's variables (CVE-2026-57231 in Podman). ``layers`` is the manifest's
    number of layers. Raises ``RegistryError`` naming the field.
    """
    if len(data) > CONFIG_LIMIT:
        _refuse(subject, "the whole", "is larger than %d MiB" % (CONFIG_LIMIT >> 20))
    document = load_json(data, "the config of " + subject)
    for name in ("architecture", "os", "variant", "os.version", "author", "created", "docker_version"):
        _string(document, name, name, subject)
    config = document.get("config")
    if config is None:
        config = {}
    if not isinstance(config, dict):
        _refuse(subject, "config", "is not an object")
    document["config"] = _check_config(config, subject)
    diff_ids = _diff_ids(document, subject)
    if layers is not None and len(diff_ids) != layers:
        _refuse(subject, "rootfs.diff_ids", "has %d entries for %d layers" % (len(diff_ids), layers))
    _history(document, subject)
    return document


def chain_ids(diff_ids: list[str]) -> list[str]:
    """The ChainID of each layer, base first (image-spec: a layer's name includes everything below it)."""
    result: list[str] = []
    for diff_id in diff_ids:
        if result:
            diff_id = "sha256:" + hashlib.sha256(("%s %s" % (result[-1], diff_id)).encode("ascii")).hexdigest()
        result.append(diff_id)
    return result


def _refuse(subject: str, field: str, why: str) -> NoReturn:
    raise RegistryError(
        "Cannot use the config of %s: %s %s" % (subject, field, why),
        step="parse_config",
        subject=subject,
        details={"field": field},
    )


def _string(holder: dict[str, Any], name: str, field: str, subject: str) -> None:
    if holder.get(name) is None:
        holder.pop(name, None)
    elif not isinstance(holder[name], str) or "\0" in holder[name]:
        _refuse(subject, field, "is not a string")


def _check_config(config: dict[str, Any], subject: str) -> dict[str, Any]:
    for name in _STRINGS:
        _string(config, name, "config." + name, subject)
    for name in _LISTS:
        if config.get(name) is None:
            config.pop(name, None)
        elif not _is_string_list(config[name]):
            _refuse(subject, "config." + name, "is not a list of strings")
    for name in _SETS:
        if config.get(name) is None:
            config.pop(name, None)
        elif not isinstance(config[name], dict):
            _refuse(subject, "config." + name, "is not an object")
    labels = config.get("Labels")
    if labels is None:
        config.pop("Labels", None)
    elif not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        _refuse(subject, "config.Labels", "is not an object of strings")
    if "Env" in config:
        config["Env"] = [entry for entry in config["Env"] if entry.find("=") > 0]
    _healthcheck(config, subject)
    return config


def _is_string_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and "\0" not in item for item in value)


def _healthcheck(config: dict[str, Any], subject: str) -> None:
    check = config.get("Healthcheck")
    if check is None:
        config.pop("Healthcheck", None)
        return
    if not isinstance(check, dict):
        _refuse(subject, "config.Healthcheck", "is not an object")
    if check.get("Test") is not None and not _is_string_list(check["Test"]):
        _refuse(subject, "config.Healthcheck.Test", "is not a list of strings")
    for name in ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"):
        value = check.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            _refuse(subject, "config.Healthcheck." + name, "is not a whole number")


def _diff_ids(document: dict[str, Any], subject: str) -> list[str]:
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, dict):
        _refuse(subject, "rootfs", "is missing")
    if rootfs.get("type", "layers") != "layers":
        _refuse(subject, "rootfs.type", "is not layers")
    diff_ids = rootfs.get("diff_ids")
    if diff_ids is None:
        diff_ids = rootfs["diff_ids"] = []
    if not isinstance(diff_ids, list) or not all(is_digest(item) for item in diff_ids):
        _refuse(subject, "rootfs.diff_ids", "is not a list of sha256 digests")
    return diff_ids


def _history(document: dict[str, Any], subject: str) -> None:
    history = document.get("history")
    if history is None:
        document.pop("history", None)
    elif not isinstance(history, list) or not all(isinstance(item, dict) for item in history):
        _refuse(subject, "history", "is not a list of objects")
