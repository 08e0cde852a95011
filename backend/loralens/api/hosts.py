"""Who may call: the host that a request names, and the site whose page sent it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers

_HOST = re.compile(r"(?:\[(?P<address>[0-9a-fA-F:.]+)\]|(?P<name>[^\s:\[\]]+?)\.?)(?::\d{1,5})?")


def host_allowed(host: str | None, names: Iterable[str]) -> bool:
    """Whether a Host header may name this server.

    A page of another site can point its own domain at 127.0.0.1 (DNS rebinding) and then read our answers; its
    requests still carry that domain as Host. IP addresses cannot be rebound, so they pass.

    >>> host_allowed("localhost:5173", ()), host_allowed("[::1]:5173", ()), host_allowed("evil.example", ())
    (True, True, False)
    """
    parsed = _HOST.fullmatch(host or "")
    if parsed is None:
        return False
    name = (parsed["address"] or parsed["name"]).lower()
    if name == "localhost" or name.endswith(".localhost") or name in {known.lower() for known in names}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def from_another_site(headers: Headers, names: Iterable[str]) -> bool:
    """Whether a page of another site sent the request.

    Browsers say so in Sec-Fetch-Site, but only to https and localhost; elsewhere there is Origin, which they send with
    every write and with every fetch across sites. `names` are hosts of our own under which a proxy may show us.
    Source: W3C Fetch Metadata, section 2.4; Fetch standard, "append a request Origin header".

    >>> from_another_site(Headers({"host": "10.0.0.4:5173", "origin": "http://10.0.0.4:5173"}), ())
    False
    >>> from_another_site(Headers({"host": "10.0.0.4:5173", "origin": "null"}), ())
    True
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site not in ("same-origin", "none")
    if origin is None:
        return False
    try:
        sender = urlsplit(origin)
        own = urlsplit(f"//{headers.get('host', '')}")
        return sender.netloc.lower() != own.netloc.lower() and (sender.hostname or "") not in map(str.lower, names)
    except ValueError:
        return True
