"""Where a request came from, as far as the proxies before us are to be believed."""

from ipaddress import ip_address

from aiohttp import web

from adserve.domain.traffic import Source
from adserve.metering.networks import Networks

FORWARDED_MAX = 20
"""How many proxies are followed."""


class Sources:
    """`proxies` are those whose X-Forwarded-For is believed: they append to it whom they heard."""

    def __init__(self, proxies: Networks) -> None:
        self._proxies = proxies

    def of(self, request: web.Request) -> Source:
        return Source(request.headers.get("User-Agent"), self._address(request))

    def _address(self, request: web.Request) -> str | None:
        """That of the last one who is no proxy of ours; None where it is not told."""
        address = request.remote
        headers = request.headers.getall("X-Forwarded-For", ())
        forwarded = [each for header in headers for each in header.split(",")]
        for further in forwarded[: -FORWARDED_MAX - 1 : -1]:
            if not self._is_proxy(address):
                return address
            address = _without_port(further.strip())
        return None if self._is_proxy(address) else address

    def _is_proxy(self, address: str | None) -> bool:
        try:
            return address is not None and self._proxies.hold(ip_address(address))
        except ValueError:
            return False


def _without_port(written: str) -> str:
    """`[2001:db8::1]:443` and `192.0.2.1:443` are written by some proxies."""
    if written.startswith("["):
        return written[1:].partition("]")[0]
    return written.partition(":")[0] if written.count(":") == 1 else written
