"""Fetch a picture from the public network and from nowhere else.

A URL is a request that a stranger makes this server send. So a name is resolved once, every address it has must be
public, and the connection goes to the very address that was checked: a name that answers differently the second time
gains nothing. Each redirect is checked alike.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import httpx

from .errors import ApiError

SECONDS = 10.0
REDIRECTS = 3
PORTS = {"http": 80, "https": 443}

_NOT_PUBLIC = [
    ipaddress.ip_network(network)
    for network in (
        # IPv4 addresses within IPv6: translated (NAT64), in tunnels (6to4, Teredo), and in the old compatible form.
        *("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96"),
        # For protocols: not all of them count as private.
        *("192.0.0.0/24", "192.88.99.0/24"),
        # The private networks of the first IPv6.
        "fec0::/10",
    )
]


class Refused(Exception):
    """Why a URL is not fetched, for the caller."""


async def fetch(url: str, max_bytes: int, param: str) -> bytes:
    """What lies under an http(s) URL of the public network, no more than ``max_bytes``.

    Raises ApiError, naming ``param``, for what must not or cannot be fetched.
    """
    try:
        return await asyncio.wait_for(_follow(httpx.URL(url), max_bytes), SECONDS)
    except Refused as refusal:
        told = str(refusal)
    except asyncio.TimeoutError:
        told = f"not there within {SECONDS:g} seconds"
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        told = "cannot be fetched"
    raise ApiError(400, f"{param}: {told}", param, "invalid_image_url")


async def _follow(url: httpx.URL, max_bytes: int) -> bytes:
    # No proxy of the environment: it would resolve the name anew.
    async with httpx.AsyncClient(trust_env=False, timeout=SECONDS, follow_redirects=False) as client:
        for _ in range(REDIRECTS + 1):
            found = await _get(client, url, max_bytes)
            if isinstance(found, bytes):
                return found
            url = url.join(found)
    raise Refused(f"more than {REDIRECTS} redirects")


async def _get(client: httpx.AsyncClient, url: httpx.URL, max_bytes: int) -> bytes | str:
    """What lies there, or where it says to look."""
    address = await public_address(url)
    request = client.build_request(
        "GET",
        url.copy_with(host=address, port=PORTS[url.scheme], fragment=None),
        headers={"Host": url.netloc.decode("ascii"), "Accept": "image/*", "Accept-Encoding": "identity"},
        extensions={"sni_hostname": url.raw_host.decode("ascii")},
    )
    response = await client.send(request, stream=True)
    try:
        if response.is_redirect:
            return response.headers.get("location", "")
        if response.status_code != 200:
            raise Refused(f"answered with status {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Refused("answered in a content encoding that was not asked for")
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > max_bytes:
                raise Refused(f"more than the {max_bytes:,} bytes allowed")
        return bytes(data)
    finally:
        await response.aclose()


async def public_address(url: httpx.URL) -> str:
    """The address to connect to for this URL. Raises Refused unless all that its host has are public."""
    if url.scheme not in PORTS or (url.port or PORTS[url.scheme]) != PORTS[url.scheme]:
        raise Refused("expected http or https at its usual port")
    if url.userinfo or not url.host:
        raise Refused("expected a host, and no name or password before it")
    found = await asyncio.get_running_loop().getaddrinfo(url.host, PORTS[url.scheme], type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(map(is_public, addresses)):
        raise Refused("its host is not on the public network")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public network: none of this machine's, of a private network or carrier's,
    of a link, for many receivers or reserved, in whatever form it is written."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if any(ip.version == network.version and ip in network for network in _NOT_PUBLIC):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)
