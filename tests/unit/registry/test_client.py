# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The registry client against a registry that lies: retried where it helps, refused where it does not."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from helpers import fake_registry as fake
from helpers.fake_registry import FakeRegistry
from helpers.images import build_image, digest_of, layer
from module_utils._engine.errors import IntegrityError, NotFound, RegistryError, UsageError
from module_utils._engine.registry import proxies, replies
from module_utils._engine.registry.client import RegistryClient, _content_range, next_page
from module_utils._engine.registry.transport import Broken, Transport, check_hop, is_loopback, origin

IMAGE = build_image([layer({"a": b"x" * 5000})])


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.add("team/app", "1", IMAGE)
        yield registry


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def client(registry: FakeRegistry, **options: Any) -> RegistryClient:
    options.setdefault("sleep", lambda _s: None)
    options.setdefault("timeout", 5)
    return RegistryClient(registry.host, Transport(**options))


def read(stream: Any) -> bytes:
    return b"".join(iter(stream.read, b""))


def test_a_loopback_registry_is_tried_with_tls_first_and_then_without(registry: FakeRegistry) -> None:
    one = client(registry)
    assert one.ping() == {"url": registry.url, "auth": "none", "logged_in": False, "version": "registry/2.0"}
    with pytest.raises(Broken) as caught:
        client(registry, ca_path="/etc/ssl/certs").ping()  # an authority was named: never silently without TLS
    assert caught.value.reason == "plain"


def test_head_and_get_agree_and_the_digest_is_that_of_the_bytes(registry: FakeRegistry) -> None:
    one = client(registry)
    head = one.head_manifest("team/app", "1")
    data, kind, digest = one.get_manifest("team/app", "1")
    assert head == (digest, len(data), kind) and digest == digest_of(data) == IMAGE.top


def test_a_head_without_a_digest_is_no_answer(registry: FakeRegistry) -> None:
    for answer in (fake.status(200), fake.status(405), fake.status(200, b"", Docker_Content_Digest="sha256:../x")):
        registry.script("/manifests/", answer)
        assert client(registry).head_manifest("team/app", "1") is None


def test_what_does_not_exist_is_not_found(registry: FakeRegistry) -> None:
    one = client(registry)
    for call in (one.head_manifest, one.get_manifest):
        with pytest.raises(NotFound, match="team/app:nope does not exist"):
            call("team/app", "nope")
    with pytest.raises(NotFound):
        one.open_blob("team/app", "sha256:" + "0" * 64)
    with pytest.raises(NotFound, match="repository name not known"):
        one.tags("nope")


def test_a_manifest_with_another_digest_is_refused(registry: FakeRegistry) -> None:
    registry.script("/manifests/", fake.status(200, b"{}"))
    with pytest.raises(IntegrityError, match="refused"):
        client(registry).get_manifest("team/app", IMAGE.top)


def test_a_manifest_without_an_end_stops_at_the_cap(registry: FakeRegistry) -> None:
    registry.script("/manifests/", fake.chunked(b" " * (5 << 20)))
    with pytest.raises(RegistryError, match="no more are allowed"):
        client(registry).get_manifest("team/app", "1")


def test_a_web_page_is_called_one(registry: FakeRegistry) -> None:
    one = client(registry)
    for call in (
        lambda: one.get_manifest("team/app", "1"),
        lambda: one.open_blob("team/app", IMAGE.config_digest),
        one.ping,
    ):
        registry.script("/v2/", fake.web_page())
        with pytest.raises(RegistryError, match="web page"):
            call()


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_passing_errors_are_waited_out(registry: FakeRegistry, code: int) -> None:
    clock = Clock()
    registry.script("/manifests/", fake.status(code), times=3)
    client(registry, clock=clock, sleep=clock.sleep).get_manifest("team/app", "1")
    assert len(clock.slept) == 3
    assert 0.25 <= clock.slept[0] <= 0.5 and 1.0 <= clock.slept[2] <= 2.0


def test_retry_after_is_honoured_within_the_deadline(registry: FakeRegistry) -> None:
    clock = Clock()
    registry.script("/manifests/", fake.status(429, Retry_After="3"))
    client(registry, clock=clock, sleep=clock.sleep).get_manifest("team/app", "1")
    assert clock.slept == [3.0]
    registry.script("/manifests/", fake.status(429, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}', Retry_After="600"))
    with pytest.raises(
        RegistryError, match=r"limit is reached \(TOOMANYREQUESTS\).*asks to wait 600 seconds"
    ) as caught:
        client(registry, clock=clock, sleep=clock.sleep).get_manifest("team/app", "1")
    assert clock.slept == [3.0] and caught.value.details["status"] == 429


def test_all_tries_are_listed_when_it_is_enough(registry: FakeRegistry) -> None:
    clock = Clock()
    registry.script("/manifests/", fake.status(500), times=99)
    with pytest.raises(RegistryError, match="gave up after 5 tries") as caught:
        client(registry, clock=clock, sleep=clock.sleep, timeout=60).get_manifest("team/app", "1")
    assert len(caught.value.details["attempts"]) == 5
    with pytest.raises(RegistryError):
        client(registry, clock=clock, sleep=clock.sleep, timeout=1).get_manifest("team/app", "1")
    assert sum(clock.slept) < 60


def test_a_retry_after_date_is_read() -> None:
    class Answer:
        headers: ClassVar[dict[str, str]] = {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}

    assert replies.retry_after(Answer(), now=1792567670.0) == 10.0  # type: ignore[arg-type]
    for text in ("", "soon", "-5", "٣"):
        Answer.headers = {"retry-after": text}
        assert replies.retry_after(Answer()) is None  # type: ignore[arg-type]


def test_a_manifest_that_breaks_off_is_asked_for_again(registry: FakeRegistry) -> None:
    data = IMAGE.manifests[IMAGE.top][0]
    registry.script("/manifests/", fake.body_of(data[:50], length=len(data)))
    registry.script("/manifests/", fake.chunked(data, broken=True))
    assert client(registry).get_manifest("team/app", "1")[0] == data


def test_redirect_loops_end_after_five(registry: FakeRegistry) -> None:
    registry.script("/blobs/", fake.redirect(registry.url + "*"), times=99)
    with pytest.raises(RegistryError, match="more than 5 times"):
        client(registry).open_blob("team/app", IMAGE.config_digest)
    assert len(registry.requests) == 6


def test_redirects_within_five_are_followed(registry: FakeRegistry) -> None:
    registry.script("/blobs/", fake.redirect(registry.url + "*", 302), times=5)
    assert read(client(registry).open_blob("team/app", IMAGE.config_digest)) == IMAGE.blobs[IMAGE.config_digest]


@pytest.mark.parametrize(
    "target", ["ftp://x/", "file:///etc/passwd", "http://user:secret@127.0.0.1/", "http://[", "//["]
)
def test_redirects_to_anything_but_a_plain_address_are_refused(registry: FakeRegistry, target: str) -> None:
    registry.script("/blobs/", fake.redirect(target))
    with pytest.raises(RegistryError, match="usable"):
        client(registry).open_blob("team/app", IMAGE.config_digest)


def test_redirects_lead_to_no_inner_address_and_to_no_weaker_line() -> None:
    outside = origin("https://registry.example.com/")
    check_hop(outside, outside, origin("https://cdn.example.net/"))
    check_hop(origin("http://127.0.0.1:5000/"), origin("http://127.0.0.1:5000/"), origin("http://127.0.0.1:6000/"))
    for target in ("http://cdn.example.net/", "https://127.0.0.1/", "https://localhost/", "https://[::1]/"):
        with pytest.raises(RegistryError):
            check_hop(outside, outside, origin(target))
    for target in ("http://169.254.169.254/latest", "http://[fe80::1]/"):
        with pytest.raises(RegistryError, match="link-local"):
            check_hop(origin("http://r.example/"), origin("http://r.example/"), origin(target))


def test_a_redirect_keeps_the_connection(registry: FakeRegistry) -> None:
    one = client(registry)
    one.ping()
    registry.script("/blobs/", fake.redirect(registry.url + "*"), times=3)
    read(one.open_blob("team/app", IMAGE.config_digest))
    assert len({request.client for request in registry.requests}) == 1


def test_a_range_is_asked_for_and_its_absence_seen(registry: FakeRegistry) -> None:
    digest = IMAGE.config_digest
    data = IMAGE.blobs[digest]
    one = client(registry)
    stream = one.open_blob("team/app", digest, 10)
    assert (stream.offset, stream.total, read(stream)) == (10, len(data), data[10:])
    registry.script("/blobs/", fake.ignore_range())
    stream = one.open_blob("team/app", digest, 10)
    assert (stream.offset, read(stream)) == (0, data)
    stream = one.open_blob("team/app", digest, len(data) + 5)  # 416
    assert (stream.offset, read(stream)) == (0, data)
    registry.script("/blobs/", fake.status(206, data[5:], Content_Range="bytes 5-%d/%d" % (len(data) - 1, len(data))))
    with pytest.raises(RegistryError, match="another part"):
        one.open_blob("team/app", digest, 10)


def test_content_ranges_are_read_strictly() -> None:
    assert _content_range("bytes 10-99/100") == (10, 100)
    assert _content_range("bytes 10-99/*") == (10, -1)
    for bad in ("", "bytes", "bytes */100", "items 1-2/3", "bytes x-y/z"):
        assert _content_range(bad)[0] == -1


def test_tags_are_paged_by_link_and_never_to_another_host(registry: FakeRegistry) -> None:
    for n in range(7):
        registry.add("team/app", "t%d" % n, IMAGE)
    registry.page = 3
    assert client(registry).tags("team/app") == ["1", *("t%d" % n for n in range(7))]
    assert len(registry.seen("/tags/list")) == 3
    assert client(registry).catalog() == ["team/app"]
    registry.script("/tags/", fake.status(200, b'{"tags":["a"]}', Link='<http://127.0.0.1:1/v2/x>; rel="next"'))
    with pytest.raises(RegistryError, match="another host"):
        client(registry).tags("team/app")
    registry.script("/tags/", fake.status(200, b'{"tags":null}'))
    assert client(registry).tags("team/app") == []
    registry.script("/tags/", fake.status(200, b'{"tags":[1]}'))
    with pytest.raises(RegistryError, match="did not answer with"):
        client(registry).tags("team/app")


def test_links_are_read() -> None:
    here = "http://r/v2/a/tags/list"
    assert next_page('</v2/a/tags/list?last=x>; rel="next"', here) == "http://r/v2/a/tags/list?last=x"
    assert next_page('<x>; rel="prev", <?last=y>; rel=next', here) == here + "?last=y"
    assert next_page("", here) == next_page("nonsense", here) == ""


def test_a_server_that_drips_is_cut_off(registry: FakeRegistry) -> None:
    for behaviour in (fake.drip(1000, 0.05), fake.drip_headers(0.05)):
        registry.script("/manifests/", behaviour, times=99)
        with pytest.raises(Broken) as caught:
            client(registry, timeout=0.5).get_manifest("team/app", "1")
        assert caught.value.reason == "timeout"
        registry._scripts.clear()


def test_nobody_there_and_no_such_name_are_said() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host = "127.0.0.1:%d" % sock.getsockname()[1]
        with pytest.raises(Broken, match="^%s: connection refused" % host) as refused:
            RegistryClient(host, Transport(timeout=0.2)).ping()
        assert "port" in (refused.value.hint or "")
        six = "[::1]:%s" % host.partition(":")[2]
        with pytest.raises(Broken, match="^" + re.escape(six)):
            RegistryClient(six, Transport(timeout=0.2)).ping()
    with pytest.raises(Broken) as caught:
        RegistryClient("no-such-host.invalid", Transport(timeout=0.2)).ping()
    assert caught.value.reason == "dns"


def test_no_thread_stays_behind(registry: FakeRegistry) -> None:
    before = set(threading.enumerate())
    client(registry).get_manifest("team/app", "1")
    after = {t for t in threading.enumerate() if "process_request" not in t.name}
    assert after <= before


def test_timeouts_and_authorities_are_validated() -> None:
    with pytest.raises(UsageError):
        Transport(timeout=0)
    with pytest.raises(UsageError, match="certificate authority"):
        RegistryClient("registry.example.com", Transport(ca_path="/nonexistent", timeout=1)).ping()


def test_loopback_is_told_by_the_name() -> None:
    for host in ("localhost", "localhost:5000", "127.0.0.1", "127.8.9.1:80", "[::1]:5000", "::1"):
        assert is_loopback(host)
    for host in ("localhost.example.com", "128.0.0.1", "127.example.com", "[::2]", "10.0.0.1:127", "127.1"):
        assert not is_loopback(host)


def test_origins_compare_by_scheme_host_and_port() -> None:
    assert origin("https://A.b/x") == origin("https://a.b:443/")
    assert origin("https://a.b/") != origin("http://a.b/") != origin("http://a.b:81/")
    assert origin("http://[::1]:5000/").host == "::1"


def test_proxies_are_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert proxies.proxy_for("https", "r.example.com", 443) == ""
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", ".inner.example, other:5000,10.0.0.0/8,[fd00::1], *.star.example")
    assert proxies.proxy_for("https", "r.example.com", 443) == "http://proxy:3128"
    assert proxies.proxy_for("http", "r.example.com", 80) == ""
    for host, port in (
        ("a.inner.example", 443),
        ("inner.example", 443),
        ("other", 5000),
        ("10.1.2.3", 443),
        ("fd00::1", 443),
        ("x.star.example", 443),
        ("127.0.0.1", 5000),
        ("localhost", 443),
    ):
        assert proxies.proxy_for("https", host, port) == "", host
    assert proxies.proxy_for("https", "other", 443) and proxies.proxy_for("https", "notinner.example", 443)
    monkeypatch.setenv("NO_PROXY", "*")
    assert proxies.proxy_for("https", "r.example.com", 443) == ""


def test_requests_go_through_the_proxy(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", registry.url)
    one = RegistryClient("registry.invalid:80", Transport(timeout=5, validate_certs=False, sleep=lambda _s: None))
    one.session.auth.home = origin("http://registry.invalid")
    one.session._base = "http://registry.invalid"
    assert one.head_manifest("team/app", "1") is not None  # the fake proxy is a registry itself
    assert registry.requests[0].path.startswith("http://registry.invalid/v2/")


def test_a_proxy_that_is_not_there_is_called_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(Broken, match="through the proxy: connection refused"):
        RegistryClient("registry.invalid", Transport(timeout=0.2)).ping()


def test_an_ipv6_registry_is_reached_by_its_literal() -> None:
    try:
        registry = FakeRegistry(address="::1")
    except OSError:
        pytest.skip("no IPv6 on loopback")
    with registry:
        registry.add("team/app", "1", IMAGE)
        assert registry.host.startswith("[::1]:")
        assert client(registry).get_manifest("team/app", "1")[2] == IMAGE.top
        assert registry.requests[-1].headers["host"] == registry.host
