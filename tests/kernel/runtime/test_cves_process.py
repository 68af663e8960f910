# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Holes that other run-times had in how a process becomes a container's, each as the law that closes it.

docs/security.md lists which test stands for which number.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess

import pytest
from module_utils._engine.errors import StartError
from module_utils._engine.kernel import capabilities
from module_utils._engine.runtime import spec

PYTHON = "/usr/bin/python3"


@pytest.fixture
def python(engine, tmp_path):
    """What to give ``engine.create`` for the host's Python in the container, read-only."""
    if not os.path.exists(PYTHON):
        pytest.skip("no %s" % PYTHON)
    layer = str(tmp_path / "python")
    os.makedirs(layer + "/tree")
    for name in ("lib", "lib64"):
        os.symlink("usr/" + name, "%s/tree/%s" % (layer, name))
    usr = {"type": "bind", "source": "/usr", "target": "/usr", "read_only": True}
    return {"layers": [engine.layers, layer], "volumes": [usr]}


def run(engine, python, script, **asked):
    state, out, err = engine.run([PYTHON, "-I", "-S", "-c", script], **python, **asked)
    assert state["exit_code"] == 0, out + err
    return out


# -- CVE-2019-5736: the container overwrites the program that enters it -----------------------------------------------


@pytest.mark.parametrize(
    "command", [["/proc/self/exe"], ["/proc/self/exe", "-c", "pass"], ["/bin/loop"], ["/bin/link"]]
)
def test_no_entrypoint_leads_to_the_engines_own_interpreter(engine, tmp_path, command):
    layer = str(tmp_path / "layer")
    os.makedirs(layer + "/tree/bin")
    with open(layer + "/tree/bin/loop", "w") as stream:
        stream.write("#!/bin/link\n")
    os.chmod(layer + "/tree/bin/loop", 0o755)
    os.symlink("/proc/self/exe", layer + "/tree/bin/link")
    cid = engine.create(command, layers=[engine.layers, layer])
    with pytest.raises(StartError, match="interpreter") as caught:
        engine.runtime.start(cid)
    assert caught.value.details["exit_code"] == 126
    assert engine.leavings(cid) == []


def test_the_engines_interpreter_cannot_be_written_while_a_container_runs(engine):
    cid = engine.start("sleep 100")
    program = os.readlink("/proc/%d/exe" % engine.runtime.state(cid)["monitor_pid"])
    with pytest.raises(OSError, match="Text file busy"):
        os.open(program, os.O_WRONLY)


def test_a_process_of_the_engine_inside_a_container_is_not_dumpable(engine, python):
    """``init`` is one that stays. Its memory, descriptors and root are no business of root's in the container."""
    script = """
import os
for name in ("exe", "root", "cwd", "fd/0", "fd/1", "mem", "environ", "maps"):
    try:
        path = "/proc/1/" + name
        open(path, "rb").read(1) if name in ("mem", "environ", "maps") else os.readlink(path)
        print("opened", name)
    except OSError as error:
        print(type(error).__name__, name)
print(open("/proc/1/cmdline").read().rstrip(chr(0)))
"""
    out = run(engine, python, script, init=True)
    assert out.count("PermissionError") == 8 and out.endswith("\ninit\n"), out
    assert engine.paths.state not in out and engine.paths.run not in out


# -- CVE-2024-21626: a descriptor of the host is left open -----------------------------------------------------------


@pytest.mark.parametrize("number", [*range(3, 21), 63, 255])
def test_no_descriptor_of_the_host_is_a_working_directory(engine, number):
    for directory in ("/proc/self/fd/%d", "/proc/self/fd/%d/../../../../etc", "/proc/1/fd/%d"):
        cid = engine.create(["/bin/true"], working_dir=directory % number)
        with pytest.raises(StartError):
            engine.runtime.start(cid)


# -- CVE-2022-27649, 27650, 24769; 2022-36109 ------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["", "app"])
@pytest.mark.parametrize("asked", [{}, {"capabilities": ["NET_ADMIN"]}, {"privileged": True}])
def test_no_capability_is_inheritable_or_ambient(engine, user, asked):
    cid = engine.start("sleep 100", user=user, **asked)
    texts = [engine.exec(cid, "cat", "/proc/self/status").stdout.decode()]
    with open("/proc/%d/status" % engine.runtime.state(cid)["pid"]) as stream:
        texts.append(stream.read())
    for text in texts:
        fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        assert int(fields["CapInh"], 16) == int(fields["CapAmb"], 16) == 0
        if user:
            assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0


def test_a_file_with_inheritable_capabilities_gives_them_to_nobody(engine, tmp_path):
    """What a non-empty inheritable set would have allowed: the file's permitted set stays empty, too."""
    layer = str(tmp_path / "layer")
    os.makedirs(layer + "/tree/bin")
    program = layer + "/tree/bin/busybox-caps"
    with open(engine.tree + "/bin/busybox", "rb") as source, open(program, "wb") as stream:
        stream.write(source.read())
    os.chmod(program, 0o755)
    mask = capabilities.to_mask({"CAP_CHOWN"})
    # struct vfs_cap_data, version 2: permitted and inheritable, low and high words
    value = b"".join(number.to_bytes(4, "little") for number in (0x02000001, 0, mask, 0, 0))
    os.setxattr(program, "security.capability", value)
    command = ["/bin/sh", "-c", "/bin/busybox-caps grep Cap /proc/self/status"]
    _state, out, _err = engine.run(command, layers=[engine.layers, layer], user="app")
    assert [line for line in out.splitlines() if line.startswith(("CapPrm", "CapEff"))] == [
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
    ]


def test_the_primary_group_is_among_the_groups(engine):
    """Or a program could drop it with setgid and get at what is denied to that group."""
    _state, out, _err = engine.sh("grep Groups: /proc/self/status", user="1234:3000")
    assert out.split() == ["Groups:", "3000"]


# -- CVE-2019-14271: the host's resolver of names loads the image's libraries --------------------------------------


def test_names_are_looked_up_without_the_images_libraries(engine, tmp_path):
    """A library in the image that any process of the engine loaded would leave a mark on the host."""
    mark = tmp_path / "loaded"
    layer = str(tmp_path / "layer")
    os.makedirs(layer + "/tree/lib")
    source = tmp_path / "evil.c"
    source.write_text(
        '#include <fcntl.h>\n__attribute__((constructor)) void f(void) { open("%s", O_CREAT | O_WRONLY, 0600); }\n'
        % mark
    )
    library = layer + "/tree/lib/libnss_files.so.2"
    try:
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, str(source)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no gcc")
    for name in ("libnss_compat.so.2", "libnss_db.so.2", "libnss_systemd.so.2", "libc.so.6"):
        os.symlink("libnss_files.so.2", "%s/tree/lib/%s" % (layer, name))
    os.makedirs(layer + "/tree/etc")
    with open(layer + "/tree/etc/nsswitch.conf", "w") as stream:
        stream.write("passwd: db files compat systemd\ngroup: db files compat systemd\n")
    bind = {"type": "bind", "source": str(tmp_path), "target": str(tmp_path)}
    cid = engine.create(["/bin/sleep", "100"], user="app", layers=[engine.layers, layer], volumes=[bind])
    engine.runtime.start(cid)
    assert engine.exec(cid, "id", user="app:more", groups=["extra"]).exit_code == 0
    assert not mark.exists()


# -- CVE-2026-57231, 2020-14370: environments mix ---------------------------------------------------------------------


def test_a_line_of_the_images_environment_without_a_value_is_dropped_not_inherited(engine, monkeypatch):
    for name in ("PATH_OF_HOST", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of the host")
    image = {"Env": ["PATH_OF_HOST", "AWS_*", "=x", "", "AWS_SECRET_ACCESS_KEY", "GOOD=1", 7]}
    lines = spec.environment({}, image, "box", False)
    assert [line.partition("=")[0] for line in lines] == ["PATH", "HOSTNAME", "GOOD"]
    cid = engine.create(["/bin/env"])
    path = engine.paths.container(cid) + "/config.json"
    with open(path) as stream:
        config = json.load(stream)
    config["process"]["env"] += ["AWS_SECRET_ACCESS_KEY", "=x", "GOOD=1"]
    with open(path, "w") as stream:
        json.dump(config, stream)
    engine.runtime.start(cid)
    engine.runtime.wait(cid, timeout=20)
    assert "GOOD=1\n" in engine.output(cid) and "of the host" not in engine.output(cid)


def test_no_container_has_anything_of_the_environment_of_the_one_before(engine):
    first, second = ({"env": {"KEY": "one", "ONLY": "first"}}, {"env": {"KEY": "two"}})
    spec.generate({"command": ["x"], **first}, {}, {"id": "a"})
    _state, out, _err = engine.sh("env", **first)
    assert "KEY=one\n" in out and "ONLY=first\n" in out
    _state, out, _err = engine.sh("env", **second)
    assert "KEY=two\n" in out and "ONLY" not in out
    cid = engine.start("sleep 100", **second)
    engine.exec(cid, "env", env=["EXEC=1"])
    assert b"EXEC" not in engine.exec(cid, "env").stdout


# -- CVE-2020-15257, 2021-41091, 2024-25621: doors on the host --------------------------------------------------------


def test_no_socket_of_the_engine_is_abstract_and_no_door_is_open_to_others(engine):
    engine.start("sleep 100", netns=False)
    with open("/proc/net/unix") as stream:
        paths = [line.split()[7] for line in stream if len(line.split()) > 7]
    own = [path for path in paths if engine.paths.run in path]
    assert own and not [path for path in own if path.startswith("@")]
    for path in own:
        directory = os.path.dirname(path)
        modes = []
        while directory.startswith(engine.paths.run):
            modes.append(stat.S_IMODE(os.stat(directory).st_mode))
            directory = os.path.dirname(directory)
        assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0 or any(mode & 0o077 == 0 for mode in modes), path


def test_another_user_of_the_host_gets_at_nothing_of_the_store(engine):
    cid = engine.start("echo logged; sleep 100")
    engine.until(lambda: engine.output(cid) == "logged\n")
    directory = engine.paths.container(cid)
    wanted = [directory + "/log", directory + "/config.json", directory + "/upper", engine.layers + "/tree/bin/busybox"]
    script = "import os,sys\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n" + (
        "for p in sys.argv[1:]:\n try:\n  os.stat(p); print('reached', p)\n except PermissionError: pass\n"
    )
    result = subprocess.run([PYTHON, "-I", "-c", script, *wanted], capture_output=True, check=True)
    assert result.stdout == b""


# -- CVE-2022-0492, 2022-0185, 2021-22555, 2024-1086, 2026-31431: the kernel's own holes ------------------------------


def test_release_agent_and_notify_on_release_cannot_be_written(engine):
    script = """
    for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/release_agent /sys/fs/cgroup/*/notify_on_release; do
        test -e $f && { echo x >$f; } 2>/dev/null && echo wrote $f
    done
    mkdir -p /tmp/c; mount -t cgroup -o rdma cgroup /tmp/c 2>/dev/null && echo mounted
    unshare -UrmC true 2>/dev/null && echo unshared
    echo end
    """
    for asked in ({}, {"capabilities": ["SYS_ADMIN"], "cap_drop": []}):
        _state, out, _err = engine.sh(script, **asked)
        assert [line for line in out.splitlines() if line.startswith("wrote")] == []
        if not asked:
            assert out == "end\n"


CALLS = """
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in args])
    print(name, "allowed" if result >= 0 else errno.errorcode[ctypes.get_errno()])
call("unshare_user", 272, 0x10000000)
call("unshare_mount", 272, 0x20000)
call("clone_user", 56, 0x10000000 | 17, 0, 0, 0, 0)
call("clone3", 435, 0, 0)
call("mount", 165, 0, 0, 0, 0, 0)
call("fsopen", 430, 0, 0)
call("open_tree", 428, -100, 0, 1)
call("bpf", 321, 0, 0, 0)
call("keyctl", 250, 0, 0)
call("add_key", 248, 0, 0, 0, 0)
call("io_uring_setup", 425, 1, 0)
call("open_by_handle_at", 304, 0, 0, 0)
call("kexec_load", 246, 0, 0, 0, 0)
call("userfaultfd", 323, 0)
call("perf_event_open", 298, 0, 0, 0, 0, 0)
call("init_module", 175, 0, 0, 0)
call("setns", 308, 0, 0)
for name, family in (("AF_ALG", 38), ("AF_VSOCK", 40)):
    try:
        socket.socket(family, socket.SOCK_SEQPACKET if family == 38 else socket.SOCK_STREAM)
        print(name, "allowed")
    except OSError as error:
        print(name, errno.errorcode[error.errno])
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of x86_64")
def test_calls_that_reach_the_kernels_holes_are_refused_before_they_get_there(engine, python):
    answers = dict(line.split() for line in run(engine, python, CALLS).splitlines())
    assert answers.pop("clone3") == "ENOSYS"
    assert {name for name, answer in answers.items() if answer not in ("EPERM", "ENOSYS")} == set()


# -- CVE-2026-53488: labels of an image are told, never obeyed --------------------------------------------------------


def test_no_label_reaches_what_the_engine_reads(engine):
    image = {"Labels": {"io.wharf.privileged": "true", "org.opencontainers.runtime": "x", "wharf": '{"secrets": []}'}}
    context = {"id": "a", "name": "n", "hostname": "h"}
    with_labels = spec.generate({"command": ["x"]}, image, context)
    assert with_labels == spec.generate({"command": ["x"]}, {}, context)
