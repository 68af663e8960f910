# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``log_driver`` and ``log_options``: checked before anything changes, and brought into the form of run.json's ``log``.

Names, defaults and words follow Docker's drivers. Imported only for containers that ask for either option.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Optional

from ..reconcile import values
from ..reconcile.values import bad

if TYPE_CHECKING:
    from ..store.records import ContainerRecord

Options = dict[str, str]

_ANY = ("mode", "max-buffer-size")
_FILES = ("max-size", "max-file", "compress")
_ATTRIBUTES = ("labels", "labels-regex", "env", "env-regex")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "json-file": (*_FILES, *_ATTRIBUTES, "tag", *_ANY),
    "local": (*_FILES, *_ANY),
    "journald": (*_ATTRIBUTES, "tag", *_ANY),
    "syslog": (*_ATTRIBUTES, "tag", "syslog-address", "syslog-facility", "syslog-format", *_ANY),
    "none": (),
}
_LOCAL_SIZE, _LOCAL_FILES = 20 << 20, 5
_BUFFER = 1 << 20
_ID = "{{.ID}}"
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


def check(spec: dict[str, Any]) -> None:
    """Raises ``UsageError``. What is Docker's default is dropped, so that it is not a difference."""
    driver = spec.get("log_driver", "json-file")
    if driver == "json-file":
        spec.pop("log_driver", None)
    given: Options = spec.get("log_options", {})
    for name in given:
        if name.startswith("syslog-tls") and driver == "syslog":
            raise bad("log_options", name, "is not supported", "let the host's own syslog daemon send over TLS")
        if name not in _OPTIONS[driver]:
            raise bad("log_options", name, "is not an option of the log driver %s" % driver)
    _check_files(driver, given)
    _check_mode(given)
    for name in ("labels-regex", "env-regex"):
        if name in given:
            pattern("log_options." + name, given[name])
    if given.get("tag"):
        _tag(given["tag"], _fields("0" * 64, "name", "sha256:" + "0" * 64, "image", spec, {}))
    if driver == "syslog":
        _check_syslog(given)
    elif driver == "journald":
        from ..runtime import logsocket

        if not os.path.exists(logsocket.JOURNAL):
            why = "needs systemd-journald, which does not run here: %s is missing" % logsocket.JOURNAL
            raise bad("log_driver", driver, why)


def pattern(option: str, text: str) -> re.Pattern[str]:
    """Raises ``UsageError`` for what is no regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise bad(option, text, "is not a regular expression: %s" % error) from None


def _check_files(driver: str, given: Options) -> None:
    size, count = _size(driver, given), _count(driver, given)
    text = given.get("compress", "false")
    if _flag("compress", text) and (count < 2 or size is None):
        why = "cannot be true when max-file is less than 2 or max-size is not set"
        raise bad("log_options.compress", text, why)


def _size(driver: str, given: Options) -> Optional[int]:
    if "max-size" not in given:
        return _LOCAL_SIZE if driver == "local" else None
    size = values.size("log_options.max-size", given["max-size"], unlimited=driver == "json-file")
    if size == 0:
        raise bad("log_options.max-size", given["max-size"], "is not a positive size")
    return size if size > 0 else None


def _count(driver: str, given: Options) -> int:
    text = given.get("max-file", str(_LOCAL_FILES) if driver == "local" else "1")
    if not text.isdigit() or int(text) < 1:
        raise bad("log_options.max-file", text, "is not a number of at least 1")
    return int(text)


def _flag(name: str, text: str) -> bool:
    if text not in _TRUE + _FALSE:
        raise bad("log_options." + name, text, "is neither true nor false")
    return text in _TRUE


def _check_mode(given: Options) -> None:
    mode = given.get("mode", "blocking")
    if mode not in ("blocking", "non-blocking"):
        raise bad("log_options.mode", mode, "is neither blocking nor non-blocking")
    if "max-buffer-size" in given:
        if mode != "non-blocking":
            raise bad("log_options.max-buffer-size", given["max-buffer-size"], "needs mode to be non-blocking")
        values.size("log_options.max-buffer-size", given["max-buffer-size"])


def _check_syslog(given: Options) -> None:
    from ..runtime.logsocket import FACILITIES, FORMATS, split_address

    facility = given.get("syslog-facility", "daemon")
    if facility not in FACILITIES and not (facility.isdigit() and int(facility) in FACILITIES.values()):
        raise bad("log_options.syslog-facility", facility, "is none of %s" % ", ".join(FACILITIES))
    if given.get("syslog-format", "") not in FORMATS:
        known = ", ".join(name for name in FORMATS if name)
        raise bad("log_options.syslog-format", given["syslog-format"], "is none of %s" % known)
    option, address = "log_options.syslog-address", given.get("syslog-address", "")
    scheme, colon, rest = address.partition("://")
    if not address:
        return
    if scheme == "tcp+tls":
        raise bad(option, address, "is not supported", "let the host's own syslog daemon send over TLS")
    if scheme not in ("tcp", "udp", "unix", "unixgram") or not colon:
        raise bad(option, address, "does not begin with tcp://, udp://, unix:// or unixgram://")
    if scheme.startswith("unix"):
        if not rest.startswith("/"):
            raise bad(option, address, "is not an absolute path")
        if not os.path.exists(rest):
            raise bad(option, address, "does not exist")
        return
    try:
        split_address(rest)[0].encode("ascii")
    except ValueError:
        raise bad(option, address, "is not HOST or HOST:PORT") from None


# -- what the monitor needs ----------------------------------------------------------------------------------------


def settings(record: ContainerRecord, image_config: dict[str, Any], directory: str) -> dict[str, Any]:
    """run.json's ``log``: see ``runtime.pump``, ``runtime.logfile`` and ``runtime.logsocket``."""
    spec = record.spec
    driver: str = spec.get("log_driver", "json-file")
    given: Options = spec.get("log_options", {})
    log: dict[str, Any] = {"driver": driver}
    if given.get("mode") == "non-blocking":
        text = given.get("max-buffer-size")
        log["max_buffer"] = values.size("log_options.max-buffer-size", text) if text else _BUFFER
    if driver == "none":
        return log
    if driver in ("json-file", "local"):
        log["path"] = log_path(directory, driver)
        log["max_size"], log["max_file"] = _size(driver, given), _count(driver, given)
        compress = given.get("compress", "true" if driver == "local" else "false")
        log["compress"] = compress in _TRUE and log["max_file"] > 1 and log["max_size"] is not None
    fields = _fields(record.id, record.name, record.image_id, record.image_ref, spec, image_config)
    attrs = _attributes(given, fields)
    if driver == "json-file":
        if given.get("tag"):
            attrs["tag"] = _tag(given["tag"], fields)
        log["attrs"] = attrs
        return log
    tag = _tag(given.get("tag") or _ID, fields)
    if driver == "syslog":
        facility = given.get("syslog-facility", "daemon")
        log.update(tag=tag, address=given.get("syslog-address", ""), format=given.get("syslog-format", ""))
        log["facility"] = int(facility) if facility.isdigit() else facility
    elif driver == "journald":
        from ..runtime.logsocket import JOURNAL

        log["address"] = JOURNAL
        log["fields"] = {
            **{_journal_name(name): value for name, value in attrs.items() if _journal_name(name)},
            "CONTAINER_ID": fields["ID"],
            "CONTAINER_ID_FULL": record.id,
            "CONTAINER_NAME": record.name,
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": record.image_ref,
            "SYSLOG_IDENTIFIER": tag,
        }
    return log


def log_path(directory: str, driver: str) -> str:
    from ..runtime.logs import LOCAL_SUFFIX

    return directory + "/log" + (LOCAL_SUFFIX if driver == "local" else "")


def depends_on_labels(spec: dict[str, Any]) -> bool:
    """A change of labels changes what the log says."""
    given = spec.get("log_options", {})
    return any(name in given for name in ("labels", "labels-regex")) or "Labels" in given.get("tag", "")


def _environment(spec: dict[str, Any], image_config: dict[str, Any]) -> dict[str, str]:
    lines = [line.partition("=") for line in image_config.get("Env") or () if isinstance(line, str)]
    return {**{name: value for name, equals, value in lines if name and equals}, **spec.get("env", {})}


def _labels(spec: dict[str, Any], image_config: dict[str, Any]) -> dict[str, str]:
    return {**(image_config.get("Labels") or {}), **spec.get("labels", {})}


def _fields(
    container: str, name: str, image_id: str, image: str, spec: dict[str, Any], image_config: dict[str, Any]
) -> dict[str, Any]:
    """What a tag's template can ask for: Docker's names."""
    image_digest = image_id.partition(":")[2] or image_id
    words = [*(spec.get("entrypoint") or ()), *(spec.get("command") or ())]
    return {
        "ID": container[:12],
        "FullID": container,
        "ContainerID": container,
        "Name": name,
        "ContainerName": "/" + name,
        "ImageID": image_digest[:12],
        "ImageFullID": image_id,
        "ContainerImageID": image_id,
        "ImageName": image,
        "ContainerImageName": image,
        "Command": " ".join(words),
        "DaemonName": "wharf",
        "Hostname": os.uname().nodename,
        "ContainerLabels": _labels(spec, image_config),
        "ContainerEnv": ["%s=%s" % item for item in _environment(spec, image_config).items()],
    }


def _tag(text: str, fields: dict[str, Any]) -> str:
    """Raises ``UsageError``."""
    if text == _ID:
        return str(fields["ID"])
    if "{{" not in text:
        return text
    from ..templates import Template

    shapes = {"ContainerLabels": "strings", "ContainerEnv": "list"}
    return Template(text, shapes, option="log_options.tag").render(fields)


def _attributes(given: Options, fields: dict[str, Any]) -> dict[str, str]:
    """Labels and variables that the log is to carry: named, or matched by the pattern."""
    environment = dict(line.split("=", 1) for line in fields["ContainerEnv"])
    found: dict[str, str] = {}
    for option, have in (("labels", fields["ContainerLabels"]), ("env", environment)):
        names = [name.strip() for name in given.get(option, "").split(",")]
        found.update({name: have[name] for name in names if name in have})
        text = given.get(option + "-regex")
        if text:
            matches = pattern("log_options.%s-regex" % option, text)
            found.update({name: value for name, value in have.items() if matches.search(name)})
    return found


def _journal_name(name: str) -> str:
    """journald takes capitals, digits and underscores, and keeps names that begin with one for itself."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper()).lstrip("_0123456789")
