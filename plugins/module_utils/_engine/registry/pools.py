# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is built from urllib3 and ssl: TLS contexts, connection pools with a time limit on an answer's headers, and
the reading of their exceptions. Imported by the first request only (25 ms)."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from typing import Any, Optional

from ..errors import UsageError
from . import certs

# Where distributions keep their authorities, for a Python that was built to look elsewhere.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_CONNECT_TIMEOUT = 15.0
# openssl/x509_vfy.h: X509_V_ERR_CERT_NOT_YET_VALID, _HAS_EXPIRED; _HOSTNAME_, _IP_ADDRESS_MISMATCH
_OUT_OF_DATE = (9, 10)
_OTHER_NAME = (62, 64)


def tls_context(unverified: bool, ca_path: Optional[str], directory: str = "") -> ssl.SSLContext:
    """``directory``: of ``certs.d``, or "". Raises ``UsageError`` when it or ``ca_path`` cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if unverified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        _trust(context, ca_path)
    if directory:
        certs.load(context, directory)
    return context


def _trust(context: ssl.SSLContext, ca_path: Optional[str]) -> None:
    context.load_default_certs()
    defaults = ssl.get_default_verify_paths()
    if not defaults.cafile and not defaults.capath:
        for bundle in _BUNDLES:
            if os.path.exists(bundle):
                context.load_verify_locations(cafile=bundle)
                break
    if ca_path:
        try:
            if os.path.isdir(ca_path):
                _load_directory(context, ca_path)
            else:
                context.load_verify_locations(cafile=ca_path)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                "Cannot use %s as certificate authority: %s" % (ca_path, error.strerror or error),
                step="registry_connect",
                path="ca_path",
                errno=error.errno if not isinstance(error, ssl.SSLError) else None,
            ) from None


def _load_directory(context: ssl.SSLContext, path: str) -> None:
    """Both kinds of directories: hashed names (c_rehash), and Docker's certs.d with ``*.crt``."""
    context.load_verify_locations(capath=path)
    for name in sorted(os.listdir(path)):
        if name.endswith((".crt", ".pem")):
            context.load_verify_locations(cafile=os.path.join(path, name))


def manager(proxy: str, context: ssl.SSLContext, timeout: float) -> Any:
    """A urllib3 pool manager; ``proxy`` is a URL or ""."""
    import urllib3

    # Where TLS is not verified was decided by Transport.insecure; a Python warning would only reach a log nobody reads.
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    options: dict[str, Any] = {
        "num_pools": 8,
        "maxsize": 4,
        "ssl_context": context,
        "timeout": urllib3.Timeout(connect=min(_CONNECT_TIMEOUT, timeout), read=timeout),
    }
    result: Any
    if proxy:
        parsed = urllib3.util.parse_url(proxy)
        if parsed.auth:
            options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=parsed.auth)
            proxy = parsed._replace(auth=None).url
        result = urllib3.ProxyManager(proxy, **options)
    else:
        result = urllib3.PoolManager(**options)
    result.pool_classes_by_scheme = _pools(timeout)
    return result


def _pools(timeout: float) -> dict[str, Any]:
    """Pools whose connections give up when an answer's headers are not complete after ``timeout``: the socket's own
    timeout starts anew with every byte, and a server may send them one by one."""
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Plain(HTTPConnection):
        def getresponse(self) -> Any:
            return _limited(self, super().getresponse, timeout)

    class Secure(HTTPSConnection):
        def getresponse(self) -> Any:
            return _limited(self, super().getresponse, timeout)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def _limited(connection: Any, getresponse: Any, timeout: float) -> Any:
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        try:
            # The socket itself, below TLS: SSLSocket.shutdown would pull the TLS object from under the reader.
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
        except (OSError, AttributeError):
            expired.set()  # it is closed already: the answer came or the connection broke in this very moment

    timer = threading.Timer(timeout, expire)
    timer.daemon = True
    timer.start()
    failure: Optional[Exception] = None
    response = None
    try:
        response = getresponse()
    except Exception as error:
        failure = error
    finally:
        timer.cancel()
        timer.join()
    # Half a header block reads like a whole one when the connection ends there, so this comes first.
    if expired.is_set():
        raise TimeoutError("no complete answer in %g seconds" % timeout) from failure
    if failure is not None:
        raise failure
    return response


def diagnose(error: BaseException) -> tuple[str, str]:
    """(``Broken.reason``, words for the user) of what an exchange raised."""
    reason, words = _diagnose(error)
    proxied = any(type(cause).__name__ == "ProxyError" for cause in _chain(error))
    return reason, "through the proxy: " + words if proxied else words


def _diagnose(error: BaseException) -> tuple[str, str]:
    for cause in _chain(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "certificate", "its TLS certificate cannot be verified (%s)" % cause.verify_message
        if isinstance(cause, ssl.SSLError):
            name = cause.reason or ""
            if name in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"):
                return "plain", "it does not speak TLS"
            if "EOF" in name or isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
                return "reset", "the connection broke off"
            return "tls", "TLS failed (%s)" % (name or cause)
        if isinstance(cause, socket.gaierror):
            return "dns", "its address cannot be found (%s)" % cause.strerror
        if isinstance(cause, ConnectionRefusedError):
            return "refused", "connection refused"
        if isinstance(cause, (TimeoutError, socket.timeout)) or "Timeout" in type(cause).__name__:
            return "timeout", "no answer in time (%s)" % cause if str(cause) else "no answer in time"
        if isinstance(cause, ConnectionError):
            return "reset", "the connection broke off"
        if type(cause).__name__ == "IncompleteRead":
            return "short", "the answer ended too early"
    innermost = next(iter(_chain(error)))
    if isinstance(innermost, OSError) and innermost.strerror:
        return "refused", innermost.strerror.lower()
    return "protocol", "not a proper HTTP answer (%s: %s)" % (type(innermost).__name__, str(innermost)[:200])


def certificate_hint(error: BaseException) -> str:
    """What to do about a certificate that could not be verified; another authority does not help with all of them."""
    codes = [one.verify_code for one in _chain(error) if isinstance(one, ssl.SSLCertVerificationError)]
    if not codes:
        return ""
    if codes[0] in _OUT_OF_DATE:
        return "Renew the registry's certificate, or set this host's clock right."
    if codes[0] in _OTHER_NAME:
        return "Use a name that the certificate is for, or give the registry one for this name."
    return "Give the registry's authority as ca_path or in certs.d, or set validate_certs to false."


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and its causes, innermost first."""
    found: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        one = todo.pop()
        if isinstance(one, BaseException) and not any(one is seen for seen in found):
            found.append(one)
            todo += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args[:2]]
    return found[::-1]
