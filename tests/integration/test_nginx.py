# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job with real input: Debian's nginx, out of a real registry, serving from a container.

Everything goes through ``ansible-playbook``. The tests of one storage form share a host, in the order of the file.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
from helpers import debian, registry
from helpers.playbook import Host, Task, refused, task
from helpers.target import TARGET

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not registry.available(), reason="docker-registry or skopeo is missing"),
]

USER = ("ship", "pass word:with/all")
PORT = 18088
OUTSIDE = "198.51.100.2"  # RFC 5737: somebody else's machine
INSIDE = "198.51.100.1"
EXTRA = "server { listen 81; root /srv/www; }\n"


class Shop(NamedTuple):
    """The registry with the image in it."""

    registry: registry.Registry
    layout: str
    digest: str

    @property
    def repository(self) -> str:
        return self.registry.host + "/shop/nginx"

    def tag(self, name: str, layout_tag: str) -> None:
        layout = "%s:%s" % (self.layout, layout_tag)
        self.registry.push_layout(layout, "shop/nginx:" + name, "--preserve-digests")  # no recompressing on the way


@pytest.fixture(scope="module")
def shop(own_network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("shop")
    layout = str(directory / "layout")
    digest = debian.oci_layout(layout, "first")
    _relabelled(layout, "first", "second")
    with registry.Registry(str(directory), tls=True, users=USER) as running, TARGET.reach(running.port):
        TARGET.put(running.ca)
        shop = Shop(running, layout, digest)
        shop.tag("stable", "first")
        yield shop


def _relabelled(layout: str, old: str, new: str) -> None:
    """A second image in the layout: the same layers with another label."""

    def put(document: Any) -> dict[str, Any]:
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        Path(layout, "blobs/sha256", digest).write_bytes(data)
        return {"digest": "sha256:" + digest, "size": len(data)}

    def get(descriptor: dict[str, Any]) -> Any:
        return json.loads(Path(layout, "blobs/sha256", descriptor["digest"][7:]).read_bytes())

    name = "org.opencontainers.image.ref.name"
    index = json.loads(Path(layout, "index.json").read_text())
    entry = next(entry for entry in index["manifests"] if entry["annotations"][name] == old)
    manifest = get(entry)
    config = get(manifest["config"])
    config["config"]["Labels"]["release"] = new
    manifest["config"].update(put(config))
    index["manifests"].append({**entry, **put(manifest), "annotations": {name: new}})
    Path(layout, "index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module", params=["its own choice"] if TARGET.far else ["erofs", "tree"])
def host(
    request: pytest.FixtureRequest, own_network: None, tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """An engine that stores layers in one form; the tasks are told by ``environment``."""
    environment = {} if TARGET.far else {"WHARF_LAYER_FORM": str(request.param)}
    host = Host(tree, tmp_path_factory.mktemp(str(request.param)), environment)
    try:
        yield host
    finally:
        host.close()


@pytest.fixture(scope="module")
def outside(own_network: None) -> Iterator[str]:
    """Path of a network namespace with a cable to the host, that routes everything through the host."""
    started = TARGET.sh("setsid unshare --net sleep 10000 </dev/null >/dev/null 2>&1 & echo $!")
    pid = int(started)
    path = "/proc/%d/ns/net" % pid
    within = "nsenter --net=%s ip " % path
    try:
        TARGET.sh("until [ $(readlink %s) != $(readlink /proc/self/ns/net) ]; do sleep 0.1; done" % path)
        TARGET.sh("ip link add out0 type veth peer name eth0 netns %d" % pid)
        TARGET.sh("ip addr add %s/24 dev out0 && ip link set out0 up" % INSIDE)
        TARGET.sh(within + "addr add %s/24 dev eth0 && %s link set eth0 up" % (OUTSIDE, within))
        TARGET.sh(within + "route add default via " + INSIDE)
        yield path
    finally:
        TARGET.call("sh", "ip link del out0")
        TARGET.call("kill", pid)


def get(url: str) -> bytes:
    """What somebody on the target is answered."""
    answer = TARGET.call("http", url, 60)
    assert answer.get("status") == 200, (url, answer)
    return str(answer["body"]).encode()


def status(url: str) -> Optional[int]:
    """None when there is no answer."""
    answer: Optional[int] = TARGET.call("http", url, 60).get("status")
    return answer


def get_from(namespace: str, url: str) -> Optional[str]:
    """What somebody in another network namespace of the target is answered; None when there is no answer."""
    code = "import sys, urllib.request; sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1], timeout=%d).read())"
    code %= 10 if TARGET.far else 1
    done = TARGET.call("sh", "nsenter --net=%s python3 -c '%s' %s" % (namespace, code, url))
    return str(done["stdout"]) if done["rc"] == 0 else None


def site(shop: Shop, directory: Path, pull: Optional[dict[str, Any]] = None, **nginx: Any) -> list[Task]:
    """The play: log in, pull by tag and by digest, a network, a volume, nginx, and a second container beside it."""
    extra = directory / "extra.conf"
    extra.write_text(EXTRA)
    TARGET.put(extra)
    ca = {"ca_path": shop.registry.ca}
    web: dict[str, Any] = {
        "image": shop.repository + ":stable",
        "networks": [{"name": "front", "aliases": ["site"]}],
        "published_ports": ["%d:80" % PORT],
        "volumes": ["site-data:/srv/www"],
        "mounts": [{"type": "bind", "source": str(extra), "target": "/etc/nginx/conf.d/extra.conf", "read_only": True}],
        "healthcheck": {"test": ["CMD", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/80"], "interval": "200ms"},
        "restart_policy": "unless-stopped",
        "stop_timeout": 3,
        "state": "healthy",
        "healthy_wait_timeout": 30,
        **ca,
    }
    login = {"registry_url": shop.registry.url, "username": USER[0], "password": USER[1], **ca}
    return [
        task("log in", "registry", **login),
        task("pull by tag", "image", name=shop.repository + ":stable", **{**ca, **(pull or {})}),
        task("pull by digest", "image", name="%s@%s" % (shop.repository, shop.digest), **ca),
        task("network", "network", name="front"),
        task("volume", "volume", name="site-data", labels={"keep": "yes"}),
        task("nginx", "container", name="web", **{**web, **nginx}),
        task(
            "client",
            "container",
            name="client",
            image=shop.repository + ":stable",
            command=["sleep", "infinity"],
            init=True,
            networks=[{"name": "front"}],
            stop_timeout=1,
        ),
    ]


def only(tasks: list[Task], *titles: str) -> list[Task]:
    return [made for made in tasks if made["name"] in titles]


def ask(container: str, host_name: str, port: int, path: str = "/") -> Task:
    """A task that fetches a page from inside a container, with nothing but bash."""
    script = "exec 3<>/dev/tcp/%s/%d; printf 'GET %s HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3" % (host_name, port, path)
    name = "%s asks %s:%d%s" % (container, host_name, port, path)
    return task(name, "container_exec", container=container, argv=["bash", "-c", script], timeout=60)


def test_the_first_run_makes_everything_and_the_second_changes_nothing(host: Host, shop: Shop) -> None:
    plan = host.play(site(shop, host.directory)[:1], "--check")
    assert plan.ok and plan["log in"]["changed"]
    first = host.play(site(shop, host.directory))
    assert first.ok
    assert first.changed == ["log in", "pull by tag", "network", "volume", "nginx", "client"]
    pulled = first["pull by tag"]["image"]
    assert pulled["Id"] == first["pull by digest"]["image"]["Id"]
    assert shop.repository + "@" + shop.digest in pulled["RepoDigests"]
    assert pulled["Config"]["StopSignal"] == "SIGQUIT" and len(pulled["RootFS"]["Layers"]) == 3
    assert first["nginx"]["container"]["State"]["Health"]["Status"] == "healthy"
    forms = {path.rpartition("/")[2] for path in TARGET.call("glob", host.paths.layers + "/*/*")}
    of_form = {"erofs": {"tar", "index"}, "tree": {"tree"}}
    asked = host.environment.get("WHARF_LAYER_FORM")
    assert forms in ([of_form[asked]] if asked else list(of_form.values()))
    second = host.play(site(shop, host.directory))
    assert second.ok and second.changed == []
    assert "changed=0" in second.output


def test_what_the_layers_hold_is_in_the_container(host: Host) -> None:
    script = """
    stat -c '%a %h' /usr/local/bin/suid /srv/www/index.html
    getcap /usr/local/bin/capable
    readlink /srv/www/link.html
    ls /srv/www/many | wc -l
    ls /srv/www/old
    ls -d /srv/www/secret.html /usr/share/doc
    find /usr /etc -xdev | wc -l
    """
    run = host.play([task("look", "container_exec", container="client", argv=["bash", "-c", script + "true"])])
    assert run.ok
    lines = run["look"]["stdout"].splitlines()
    assert lines[:6] == [
        "4755 1",
        "644 2",
        "/usr/local/bin/capable cap_net_bind_service=ep",
        "index.html",
        "2000",
        "new.html",
    ]
    assert len(lines) == 7 and int(lines[6]) > 3000
    assert run["look"]["stderr"].count("No such file or directory") == 2


def test_nginx_answers_where_it_is_published_and_nowhere_else(host: Host, outside: str) -> None:
    here = "http://127.0.0.1:%d" % PORT
    for path in ("/", "/same.html", "/link.html"):
        assert get(here + path) == debian.PAGE
    assert get(here + "/many/1999") == b"1999\n"
    assert status(here + "/secret.html") == status(here + "/old/gone.html") == 404
    assert get_from(outside, "http://%s:%d/" % (INSIDE, PORT)) == debian.PAGE.decode()
    for port in (80, 81):
        assert status("http://127.0.0.1:%d/" % port) is None
        assert get_from(outside, "http://%s:%d/" % (INSIDE, port)) is None
    shown = host.engine.inspect("web")
    address = shown["NetworkSettings"]["Networks"]["front"]["IPAddress"]
    assert get("http://%s:81/" % address) == debian.PAGE  # nginx listens there, and the host may ask
    for port in (80, 81):
        assert get_from(outside, "http://%s:%d/" % (address, port)) is None


def test_another_container_finds_it_by_its_names(host: Host) -> None:
    stranger = ask("client", "front", 80) | {"ignore_errors": True}
    run = host.play([ask("client", "web", 80), ask("client", "site", 81), stranger])
    assert run.ok
    for name in ("client asks web:80/", "client asks site:81/"):
        assert run[name]["rc"] == 0 and debian.PAGE.decode().strip() in run[name]["stdout"]
    assert run.failure("client asks front:80/")["rc"] == 1


def test_check_and_diff_predict_a_changed_port_that_is_then_changed_live(host: Host, shop: Shop) -> None:
    new = only(site(shop, host.directory, published_ports=["%d:80" % (PORT + 1)]), "nginx")
    predicted = host.play(new, "--check", "--diff")
    assert predicted.ok and predicted.changed == ["nginx"]
    assert str(PORT) in predicted.output and str(PORT + 1) in predicted.output
    before = host.engine.inspect("web")
    assert get("http://127.0.0.1:%d/" % PORT) == debian.PAGE, "check mode changed something"
    done = host.play(new)
    assert done.ok and done.changed == ["nginx"]
    assert done["nginx"]["actions"] == predicted["nginx"]["actions"]
    assert host.engine.inspect("web")["State"]["Pid"] == before["State"]["Pid"]
    assert get("http://127.0.0.1:%d/" % (PORT + 1)) == debian.PAGE
    assert status("http://127.0.0.1:%d/" % PORT) is None
    back = host.play(only(site(shop, host.directory), "nginx"))
    assert back.ok and back.changed == ["nginx"]
    assert get("http://127.0.0.1:%d/" % PORT) == debian.PAGE


def test_data_in_the_volume_survives_replacing_the_container(host: Host, shop: Shop) -> None:
    write = ["bash", "-c", "echo written by hand > /srv/www/mine.html"]
    nginx = only(site(shop, host.directory, env={"NEW": "1"}), "nginx")
    replaced = host.play([task("write", "container_exec", container="web", argv=write), *nginx])
    assert replaced.ok
    assert replaced.changed == ["write", "nginx"]
    assert replaced["nginx"]["actions"][0]["how"] == "replace"
    here = "http://127.0.0.1:%d" % PORT
    assert get(here + "/mine.html") == b"written by hand\n" and get(here + "/") == debian.PAGE
    again = host.play([*nginx, ask("client", "web", 80, "/mine.html")])
    assert again.ok and again.changed == ["client asks web:80/mine.html"]
    assert "written by hand" in again["client asks web:80/mine.html"]["stdout"]


def test_an_image_in_use_is_not_removed(host: Host, shop: Shop) -> None:
    ca = {"ca_path": shop.registry.ca}
    run = host.play(
        [
            refused("by id", "image", name=host.engine.inspect("web")["Image"], state="absent", force=True),
            task("still there", "image", name=shop.repository + ":stable", **ca),
            refused("volume in use", "volume", name="site-data", state="absent"),
            refused("network in use", "network", name="front", state="absent"),
        ]
    )
    for name in ("by id", "volume in use", "network in use"):
        assert run.failure(name)["error"]["kind"] == "in_use", name
    assert run["by id"]["error"]["containers"] == ["client", "web"] and "web" in run["volume in use"]["msg"]
    assert not run["still there"]["changed"]
    assert get("http://127.0.0.1:%d/" % PORT) == debian.PAGE


def test_a_moved_tag_is_noticed_when_the_registry_is_to_be_asked(host: Host, shop: Shop) -> None:
    asking = site(shop, host.directory, pull={"pull": "always"}, env={"NEW": "1"})
    pull = only(asking, "pull by tag")
    unmoved = host.play(pull, "--check")
    assert unmoved.ok and unmoved.changed == []
    shop.tag("stable", "second")
    try:
        lazy = host.play(only(site(shop, host.directory), "pull by tag"), "--check")
        assert lazy.ok and lazy.changed == []
        told = host.play(pull, "--check")
        assert told.ok and told.changed == ["pull by tag"]
        assert host.engine.inspect("web")["Config"]["Labels"].get("release") is None
        moved = host.play(only(asking, "pull by tag", "nginx"))
        assert moved.ok and moved.changed == ["pull by tag", "nginx"]
        assert moved["pull by tag"]["image"]["Config"]["Labels"]["release"] == "second"
        assert host.engine.inspect("web")["Config"]["Labels"]["release"] == "second"
        assert get("http://127.0.0.1:%d/mine.html" % PORT) == b"written by hand\n"
        again = host.play(only(asking, "pull by tag", "nginx"))
        assert again.ok and again.changed == []
    finally:
        shop.tag("stable", "first")


def test_everything_absent_leaves_nothing(host: Host, shop: Shop) -> None:
    gone: list[Task] = [
        task("web", "container", name="web", state="absent", keep_volumes=False, stop_timeout=1),
        task("client", "container", name="client", state="absent", keep_volumes=False, stop_timeout=1),
        task("network", "network", name="front", state="absent"),
        task("volume", "volume", name="site-data", state="absent"),
        task("digest", "image", name="%s@%s" % (shop.repository, shop.digest), state="absent"),
        task("tag", "image", name=shop.repository + ":stable", state="absent"),
        task("login", "registry", registry_url=shop.registry.url, state="absent"),
    ]
    planned = host.play(gone[:2], "--check")
    assert planned.ok and planned.changed == ["web", "client"]
    assert host.engine.inspect("web")["State"]["Running"]
    first = host.play(gone)
    assert first.ok
    assert first.changed == [made["name"] for made in gone]
    assert host.left() == {}
    assert shop.registry.host not in TARGET.call("read", host.paths.auth)
    second = host.play(gone)
    assert second.ok and second.changed == []


@pytest.fixture
def untrusted(shop: Shop, outside: str) -> Iterator[str]:
    """A host name of a server that shows the registry's certificate, and is not on loopback: there, certificates are
    not looked at, as Docker has it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shop.registry.directory + "/server.crt", shop.registry.directory + "/server.key")
    server = http.server.ThreadingHTTPServer((INSIDE, 0), http.server.BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield "%s:%d" % (INSIDE, server.server_address[1])
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.near("a server of the test's own at an address that is not loopback")
def test_what_a_registry_refuses_is_one_sentence(fresh: Host, shop: Shop, untrusted: str) -> None:
    ca = {"ca_path": shop.registry.ca}
    login = {"registry_url": shop.registry.url, "username": USER[0]}
    run = fresh.play(
        [
            refused("wrong password", "registry", password="guess", **login, **ca),
            refused("untrusted login", "registry", password=USER[1], **{**login, "registry_url": untrusted}),
            refused("no login", "image", name=shop.repository + ":stable", **ca),
            refused("untrusted", "image", name=untrusted + "/shop/nginx:stable"),
            task("log in", "registry", password=USER[1], **login, **ca),
            refused("unknown tag", "image", name=shop.repository + ":nosuch", **ca),
            refused("unknown tag in check mode", "image", name=shop.repository + ":nosuch", **ca)
            | {"check_mode": True},
            refused("unknown repository", "image", name=shop.registry.host + "/no/such:1", **ca),
            refused("container", "container", name="nosuch", image=shop.repository + ":nosuch", **ca),
            task("unverified", "registry_info", registry_url=shop.registry.url, validate_certs=False),
            task("verified", "registry_info", registry_url=shop.registry.url, name="shop/nginx", **ca),
        ]
    )
    assert run.failure("wrong password")["error"]["kind"] == "auth"
    assert "guess" not in json.dumps(run["wrong password"])
    assert run.failure("no login")["error"]["kind"] == "auth"
    for name in ("untrusted", "untrusted login"):
        failed = run.failure(name)
        assert failed["error"]["kind"] == "registry" and "certificate" in failed["msg"].lower()
        assert "ca_path" in failed["msg"] + str(failed["error"]["hint"])
    for name in ("unknown tag", "unknown tag in check mode", "container"):
        failed = run.failure(name)
        assert failed["error"]["kind"] == "not_found" and "nosuch" in failed["msg"]
    assert run.failure("unknown repository")["error"]["kind"] == "not_found"
    assert run["log in"]["changed"] and USER[1] not in run.output
    assert run["unverified"]["registry"]["logged_in"] and run["unverified"]["registry"]["username"] == USER[0]
    assert run["verified"]["registry"]["tags"] == ["stable"]
    assert TARGET.call("mode", fresh.paths.auth) == 0o600
    assert fresh.left() == {}
