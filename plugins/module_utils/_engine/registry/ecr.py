# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Amazon ECR without its helper: GetAuthorizationToken, signed (Signature Version 4) with what the environment or
``~/.aws/credentials`` holds. The token is good for 12 hours and is kept for this process only.

https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import time
from typing import Optional

from ..errors import AuthError, RegistryError
from ..tuples import NamedTuple
from .credentials import Credential

TARGET = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
_CONTENT = "application/x-amz-json-1.1"
_SERVICE = "ecr"
_known: dict[str, Credential] = {}


class Keys(NamedTuple):
    access: str
    secret: str
    session: str

    def __repr__(self) -> str:
        return "Keys(%r)" % self.access


class Registry(NamedTuple):
    account: str
    region: str
    suffix: str


def parse_host(host: str) -> Optional[Registry]:
    """``<account>.dkr.ecr[-fips].<region>.amazonaws.com[.cn]``, or None."""
    labels = host.lower().split(".")
    if len(labels) < 6 or labels[1] != "dkr" or labels[2] not in ("ecr", "ecr-fips"):
        return None
    account, region, suffix = labels[0], labels[3], ".".join(labels[4:])
    plain = region.replace("-", "")
    if not (account.isascii() and account.isdigit() and plain.isascii() and plain.isalnum()):
        return None
    return Registry(account, region, suffix) if suffix in ("amazonaws.com", "amazonaws.com.cn") else None


def credential(host: str) -> Optional[Credential]:
    """None for another host, or where no keys are found. Raises ``AuthError`` when Amazon refuses them."""
    where, keys = parse_host(host), find_keys()
    if where is None or keys is None:
        return None
    if host not in _known:
        _known[host] = _ask(where, keys, host)
    return _known[host]


def find_keys() -> Optional[Keys]:
    """From ``AWS_ACCESS_KEY_ID`` and its relatives, else from the profile in the shared credentials file."""
    environment = os.environ
    access, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if access and secret:
        return Keys(access, secret, environment.get("AWS_SESSION_TOKEN") or "")
    path = environment.get("AWS_SHARED_CREDENTIALS_FILE") or (environment.get("HOME") or "/root") + "/.aws/credentials"
    if not os.path.exists(path):
        return None
    import configparser

    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
        section = parser[environment.get("AWS_PROFILE") or "default"]
        return Keys(
            section["aws_access_key_id"], section["aws_secret_access_key"], section.get("aws_session_token") or ""
        )
    except (configparser.Error, KeyError, UnicodeDecodeError):
        return None  # a file for other things: roles, single sign-on


def _ask(where: Registry, keys: Keys, host: str) -> Credential:
    from .replies import error_text
    from .transport import Transport

    endpoint = os.environ.get("AWS_ENDPOINT_URL_ECR") or os.environ.get("AWS_ENDPOINT_URL") or ""
    url = (endpoint or "https://api.ecr.%s.%s" % (where.region, where.suffix)).rstrip("/") + "/"
    body = json.dumps({"registryIds": [where.account]}).encode()
    transport = Transport(timeout=30)
    try:
        headers = sign(url, body, where.region, keys, time.gmtime())
        response = transport.send("POST", url, headers, body)
        data = response.body(1 << 20)
        if response.status != 200:
            raise AuthError(
                "Amazon gives no token for %s (status %d)%s"
                % (host, response.status, ": " + error_text(data) if error_text(data) else ""),
                step="ecr_token",
                subject=host,
                hint="Check the AWS keys in the environment of the task, and their permission to pull from ECR.",
            )
        return _read(data, host)
    finally:
        transport.close()


def _read(data: bytes, host: str) -> Credential:
    try:
        token = json.loads(data)["authorizationData"][0]["authorizationToken"]
        username, colon, password = base64.b64decode(token, validate=True).decode("utf-8").partition(":")
        if colon and username and password:
            return Credential(username, password, source="Amazon ECR's GetAuthorizationToken")
    except (ValueError, KeyError, IndexError, TypeError, binascii.Error, RecursionError):
        username = ""
    raise RegistryError("Amazon answered without a token for %s" % host, step="ecr_token", subject=host)


def sign(url: str, body: bytes, region: str, keys: Keys, now: time.struct_time) -> dict[str, str]:
    """The headers of a signed POST of ``body`` (Signature Version 4)."""
    from urllib.parse import urlsplit

    stamp, day = time.strftime("%Y%m%dT%H%M%SZ", now), time.strftime("%Y%m%d", now)
    parts = urlsplit(url)
    headers = {"content-type": _CONTENT, "host": parts.netloc, "x-amz-date": stamp, "x-amz-target": TARGET}
    if keys.session:
        headers["x-amz-security-token"] = keys.session
    names = ";".join(sorted(headers))
    lines = "".join("%s:%s\n" % (name, headers[name]) for name in sorted(headers))
    payload = hashlib.sha256(body).hexdigest()
    request = "\n".join(("POST", parts.path or "/", parts.query, lines, names, payload))
    scope = "%s/%s/%s/aws4_request" % (day, region, _SERVICE)
    text = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = ("AWS4" + keys.secret).encode()
    for part in (day, region, _SERVICE, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return {
        **{name.title(): value for name, value in headers.items() if name != "host"},
        "Authorization": "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s"
        % (keys.access, scope, names, signature),
    }
