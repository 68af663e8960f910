# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role left on the host is what its documentation says: it serves, over TLS, its users alone."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import urllib.error
import urllib.request
from typing import Any

import pytest

STATE = "/var/lib/wharf-molecule"
CONFIG = "/etc/wharf-registry-molecule"
HERE = "127.0.0.1:15443"


def ask(path: str, method: str = "GET", user: str = "") -> tuple[int, Any]:
    """(status, headers) of the registry's answer, with its authority verified."""
    request = urllib.request.Request("https://%s%s" % (HERE, path), method=method)
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    context = ssl.create_default_context(cafile="/etc/containers/certs.d/%s/ca.crt" % HERE)
    try:
        with urllib.request.urlopen(request, context=context, timeout=30) as response:
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_it_serves_its_users_and_nobody_else(host: Any) -> None:
    assert ask("/v2/")[0] == 401
    assert ask("/v2/", user="ship:wrong")[0] == 401
    assert ask("/v2/", user="ship:in the harbour")[0] == 200


def test_the_certificate_is_for_the_names_that_were_asked_for(host: Any) -> None:
    shown = host.check_output("openssl x509 -in %s/tls/server.crt -noout -ext subjectAltName", CONFIG)
    for name in ("DNS:registry.molecule.test", "DNS:localhost", "IP Address:127.0.0.1"):
        assert name in shown
    assert host.run("openssl verify -CAfile %s/ca.crt %s/tls/server.crt", CONFIG, CONFIG).rc == 0
    plain = socket.create_connection(("127.0.0.1", 15443), 30)
    with plain, pytest.raises(ssl.SSLError):  # whoever was not told to trust it does not
        ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize(
    ("path", "mode"),
    [("ca.key", 0o600), ("tls/server.key", 0o640), ("auth/htpasswd", 0o640), ("collect.json", 0o600), ("", 0o750)],
)
def test_secrets_are_root_s_alone(host: Any, path: str, mode: int) -> None:
    found = host.file("%s/%s" % (CONFIG, path))
    assert found.user == "root" and found.group == "root" and found.mode == mode


def test_passwords_are_kept_as_bcrypt_and_nowhere_else(host: Any) -> None:
    lines = host.file(CONFIG + "/auth/htpasswd").content_string.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["ship", "crane"]
    assert all(line.partition(":")[2].startswith("$2") for line in lines)
    assert host.run("grep -r 'in the harbour' %s", CONFIG).rc == 1


def test_a_configuration_that_the_registry_does_not_understand_was_refused_in_its_own_words(host: Any) -> None:
    words = host.file(STATE + "/refusal").content_string
    assert "does not come up with this configuration" in words
    assert "must provide exactly one storage type" in words


def test_what_was_deleted_is_gone_after_the_collection_and_the_registry_takes_pushes_again(host: Any) -> None:
    deleted = json.loads(host.file(STATE + "/deleted.json").content_string)
    assert deleted["layers"]
    for digest in deleted["layers"]:
        assert "blob eligible for deletion: " + digest in deleted["told"]
        assert ask("/v2/team/registry/blobs/" + digest, "HEAD", "ship:in the harbour")[0] == 404
    status, headers = ask("/v2/team/registry/blobs/uploads/", "POST", "ship:in the harbour")
    assert status == 202 and headers["Docker-Upload-UUID"]


def test_while_garbage_is_collected_the_registry_is_told_to_take_no_pushes(host: Any) -> None:
    plan = json.loads(host.file(CONFIG + "/collect.json").content_string)
    binds = [one.partition(":")[0] for one in plan["read_only"]["volumes"] if "config" in one]
    assert "readonly:\n            enabled: true" in host.file(binds[0]).content_string
    assert plan["collect"]["command"] == ["garbage-collect", "/etc/wharf-registry/config.yml"]


def test_the_container_can_do_little(host: Any) -> None:
    config = json.loads(host.file(CONFIG + "/collect.json").content_string)["container"]
    assert config["read_only"] is True and config["cap_drop"] == ["all"]
    assert config["restart_policy"] == "unless-stopped"


def test_the_cache_has_what_was_pulled_through_it(host: Any) -> None:
    pulled = "%s/volumes/molecule-cache/_data/docker/registry/v2/repositories/base/registry/_manifests/tags" % STATE
    assert host.file(pulled).is_directory
    with urllib.request.urlopen("http://127.0.0.1:15444/v2/base/registry/tags/list", timeout=30) as response:
        assert json.load(response) == {"name": "base/registry", "tags": ["2"]}


def test_nothing_was_put_beside_what_belongs_to_the_registry(host: Any) -> None:
    assert host.file(CONFIG + "/collect.py").is_file
    assert not [name for name in host.file("/usr/local/lib").listdir() if "registry" in name]
