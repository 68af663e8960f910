# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every verb with its options: names and meanings are runc's."""

from __future__ import annotations

from ..tuples import NamedTuple
from .argv import FLAG, MANY, NUMBER, TEXT, Option

GLOBAL = (
    Option("root", TEXT, "directory for the containers' state; a tmpfs", default="/run/wharf-oci"),
    Option("log", TEXT, "file that errors are written to (/dev/stderr when not given)"),
    Option("log-format", TEXT, "text or json", default="text"),
    Option("debug", FLAG, "log more"),
    Option("systemd-cgroup", FLAG, "cgroupsPath is slice:prefix:name, and systemd makes the cgroup"),
    Option("rootless", TEXT, "accepted for callers that give it; the runtime runs as root"),
    Option("criu", TEXT, "accepted for callers that give it; there is no checkpointing"),
    Option("help", FLAG, "show this", "h"),
    Option("version", FLAG, "print the version", "v"),
)

_BUNDLE = Option("bundle", TEXT, "directory with config.json; the current one when not given", "b")
_PIDFILE = Option("pid-file", TEXT, "file to write the process id to")
_CONSOLE = Option("console-socket", TEXT, "AF_UNIX socket that gets the terminal's master")
_PRESERVE = Option("preserve-fds", NUMBER, "hand descriptors 3 to 2+N on to the program", default=0)
_CREATE = (
    _BUNDLE,
    _CONSOLE,
    _PIDFILE,
    Option("no-pivot", FLAG, "move the root instead of pivot_root: for roots on the initial ramdisk"),
    Option("no-new-keyring", FLAG, "keep the caller's session keyring"),
    _PRESERVE,
)
_FORMAT = Option("format", TEXT, "table or json", "f", "table")
_DETACH = Option("detach", FLAG, "do not wait for the program", "d")


class Verb(NamedTuple):
    """``module`` of this room has ``function(context, values, words)``, which returns the exit status. ``words``: how
    many are needed at least and at most (-1: any number)."""

    module: str
    function: str
    about: str
    usage: str = "<container-id>"
    options: tuple[Option, ...] = ()
    words: tuple[int, int] = (1, 1)


VERBS = {
    "create": Verb("create", "create", "create a container; its program waits for start", options=_CREATE),
    "run": Verb(
        "create",
        "run",
        "create and start a container",
        options=(
            *_CREATE,
            _DETACH,
            Option("keep", FLAG, "do not delete the container when it ends"),
            Option("no-subreaper", FLAG, "do not adopt processes whose parent ended"),
        ),
    ),
    "start": Verb("lifecycle", "start", "run the program of a created container"),
    "delete": Verb(
        "lifecycle",
        "delete",
        "remove a container that ended",
        options=(Option("force", FLAG, "kill it first if it runs", "f"),),
    ),
    "state": Verb("report", "state", "print a container's state"),
    "list": Verb(
        "report",
        "list_all",
        "list the containers below the root directory",
        usage="",
        options=(_FORMAT, Option("quiet", FLAG, "print only the ids", "q")),
        words=(0, 0),
    ),
    "ps": Verb("report", "ps", "list a container's processes", "<container-id> [ps options]", (_FORMAT,), (1, -1)),
    "features": Verb("features", "features", "print what this runtime can do", usage="", words=(0, 0)),
    "spec": Verb(
        "template",
        "spec",
        "write a config.json to start from",
        usage="",
        options=(_BUNDLE, Option("rootless", FLAG, "refused: the runtime runs as root")),
        words=(0, 0),
    ),
    "kill": Verb(
        "control",
        "kill",
        "send a signal to a container's first process",
        "<container-id> [signal]",
        (Option("all", FLAG, "to all its processes", "a"),),
        (1, 2),
    ),
    "pause": Verb("control", "pause", "stop all processes where they are"),
    "resume": Verb("control", "resume", "let paused processes go on"),
    "events": Verb(
        "events",
        "events",
        "print figures and events as JSON lines",
        options=(
            Option("interval", TEXT, "seconds (or 500ms, 1m) between two lines", default="5s"),
            Option("stats", FLAG, "print one line and end"),
        ),
    ),
    "update": Verb(
        "update",
        "update",
        "change the limits of a container",
        options=(
            Option("resources", TEXT, "file with resources as in config.json, - for standard input", "r"),
            Option("blkio-weight", NUMBER, "10 to 1000"),
            Option("cpu-period", NUMBER, "microseconds"),
            Option("cpu-quota", NUMBER, "microseconds per period; -1: unlimited"),
            Option("cpu-burst", NUMBER, "microseconds"),
            Option("cpu-share", NUMBER, "relative weight"),
            Option("cpu-rt-period", NUMBER, "refused: real-time groups"),
            Option("cpu-rt-runtime", NUMBER, "refused: real-time groups"),
            Option("cpuset-cpus", TEXT, "CPUs, such as 0-3,5"),
            Option("cpuset-mems", TEXT, "memory nodes"),
            Option("cpu-idle", NUMBER, "1: run only when nobody else wants to"),
            Option("memory", TEXT, "bytes; -1: unlimited"),
            Option("memory-reservation", TEXT, "bytes"),
            Option("memory-swap", TEXT, "bytes of memory and swap together; -1: unlimited"),
            Option("kernel-memory", TEXT, "refused: the kernel has it no more"),
            Option("kernel-memory-tcp", TEXT, "refused: the kernel has it no more"),
            Option("pids-limit", NUMBER, "number of processes; -1: unlimited"),
            Option("l3-cache-schema", TEXT, "refused: Intel RDT"),
            Option("mem-bw-schema", TEXT, "refused: Intel RDT"),
        ),
    ),
    "exec": Verb(
        "execute",
        "run",
        "run one more program in a container",
        "<container-id> <command> [arguments] | -p process.json <container-id>",
        (
            _CONSOLE,
            Option("cwd", TEXT, "working directory"),
            Option("env", MANY, "NAME=value", "e"),
            Option("tty", FLAG, "give it a terminal", "t"),
            Option("user", TEXT, "uid[:gid]", "u"),
            Option("additional-gids", MANY, "one more group", "g"),
            Option("process", TEXT, "file with the process as in config.json", "p"),
            _DETACH,
            _PIDFILE,
            Option("process-label", TEXT, "refused: SELinux"),
            Option("apparmor", TEXT, "AppArmor profile"),
            Option("no-new-privs", FLAG, "the program cannot gain privileges"),
            Option("cap", MANY, "one more capability", "c"),
            _PRESERVE,
            Option("cgroup", MANY, "[controller:]path of an existing cgroup below the container's"),
            Option("ignore-paused", FLAG, "also into a paused container"),
        ),
        (1, -1),
    ),
    "checkpoint": Verb("refused", "refuse", "not supported", words=(0, -1)),
    "restore": Verb("refused", "refuse", "not supported", words=(0, -1)),
}
