"""Pictures, recordings and clips in requests: data URIs, base64, and addresses of allowed hosts.

No request names a file of the machine.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import socket
import time
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes, urlsplit

from skillweave.data.processors import BadInput
from skillweave.serving.settings import ServiceConfig

DATA_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;base64)?,", re.ASCII)
MODALITIES = {"image": "image", "audio": "sound", "video": "video", "text": "text"}
"""First half of a media type → modality."""
FETCH_SECONDS = 20


def modality_of(uri: str) -> str | None:
    """The modality that a data URI says it is; None where it does not say it."""
    found = DATA_URI.match(uri[:1000])
    return MODALITIES.get((found[1] or "").partition("/")[0]) if found else None


def read_media(value: str, settings: ServiceConfig) -> bytes:
    """The bytes of a data URI, or of a file at an allowed web address. Raises BadInput."""
    if found := DATA_URI.match(value[:1000]):
        content = value[found.end() :]
        return read_base64(content) if found[3] else unquote_to_bytes(content)
    if value[:8].lower().startswith(("http://", "https://")):
        return fetch(value, settings)
    raise BadInput(
        "expected a data URI, such as data:image/png;base64,...; names of files are not read"
    )


def read_base64(content: str) -> bytes:
    """What base64 stands for. Raises BadInput."""
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"not valid base64 ({error})") from None


def fetch(url: str, settings: ServiceConfig) -> bytes:
    """The file at a web address. Raises BadInput for a host that is not allowed, or that leads into
    an internal network, and for a file that is too large, too slow or elsewhere (no redirects)."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise BadInput("not a web address") from None
    if not settings.allowed_hosts:
        raise BadInput("web addresses are not fetched here; send the file itself as a data URI")
    if not is_allowed(host, settings.allowed_hosts):
        raise BadInput(f"files are not fetched from {host[:100]!r}; send them as data URIs")
    import httpx  # where a service fetches at all

    default = 443 if parts.scheme.lower() == "https" else 80
    address = resolve(host, port or default, settings.allowed_hosts)
    bracketed = f"[{address}]" if ":" in address else address
    # the address that was checked is the one that is asked: a second lookup may answer otherwise
    target = httpx.URL(url).copy_with(host=bracketed, username=None, password=None)
    named = f"{host}:{port}" if port else host
    deadline, content = time.monotonic() + FETCH_SECONDS, bytearray()
    try:
        with (
            httpx.Client(timeout=10, trust_env=False, follow_redirects=False) as client,
            client.stream(
                "GET", target, headers={"host": named}, extensions={"sni_hostname": host}
            ) as response,
        ):
            if response.status_code != 200:
                raise BadInput(f"{host}: status {response.status_code}, expected 200")
            for block in response.iter_bytes():
                content += block
                if len(content) > settings.max_body_bytes:
                    raise BadInput(f"{host}: the file is larger than {settings.max_body_bytes}")
                if time.monotonic() > deadline:
                    raise BadInput(f"{host}: the file takes more than {FETCH_SECONDS} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadInput(f"{host}: cannot be fetched ({type(error).__name__})") from None
    return bytes(content)


def is_allowed(host: str, allowed: Sequence[str]) -> bool:
    """Whether a host is one of the list; `.example.org` allows all names below example.org."""
    return any(host == one or (one.startswith(".") and host.endswith(one)) for one in allowed)


def resolve(host: str, port: int, allowed: Sequence[str]) -> str:
    """The address of a host. Raises BadInput for a name that leads to an internal network."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        raise BadInput(f"{host}: no such host") from None
    is_address = host in allowed and _as_address(host) is not None
    if not is_address and not all(ipaddress.ip_address(one).is_global for one in found):
        raise BadInput(f"{host}: leads to an internal address, from which nothing is fetched")
    return min(found)


def _as_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
