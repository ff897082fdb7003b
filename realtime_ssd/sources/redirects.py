"""Redirects of web servers, followed one by one and never to a local address.

An address is resolved here and again by FFmpeg, so this does not protect from a name server that
answers differently each time.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import SplitResult, urljoin, urlsplit

from realtime_ssd.core.errors import SourceError, first_line, redact

__all__ = ["follow_redirects"]

_MOST = 8
_TIMEOUT = 5.0


def follow_redirects(url: str) -> str:
    """Return the address at the end of a chain of redirects.

    A redirect within the same server is allowed, whatever its address.

    Args:
        url: http or https address.

    Raises:
        SourceError: If a redirect leads to this machine or to a private network, or if a server
            does not answer.
    """
    import requests

    origin = urlsplit(url)
    for _ in range(_MOST):
        try:
            with requests.get(url, stream=True, allow_redirects=False, timeout=_TIMEOUT) as answer:
                target = answer.headers.get("Location") if answer.is_redirect else None
        except (requests.RequestException, ValueError) as error:
            raise SourceError(f"'{redact(url)}' cannot be opened: {first_line(error)}") from None
        if not target:
            return url
        url = urljoin(url, target)
        if not _is_allowed(urlsplit(url), origin):
            raise SourceError(
                f"'{redact(origin.geturl())}' redirects to a local or invalid address; set "
                "`local_redirects` if you trust the server"
            )
    raise SourceError(f"'{redact(origin.geturl())}' redirects more than {_MOST} times")


def _is_allowed(target: SplitResult, origin: SplitResult) -> bool:
    try:
        if target.scheme not in ("http", "https"):
            return False
        if (target.hostname, target.port) == (origin.hostname, origin.port):
            return True
        found = socket.getaddrinfo(target.hostname, target.port or 80, type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # an unknown host, or a malformed address
        return False
    addresses = {str(item[4][0]).partition("%")[0] for item in found}
    return bool(addresses) and all(map(_is_public, addresses))


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None) or parsed
    return bool(mapped.is_global) and not mapped.is_multicast
