"""Networks as the operator lists them: one in CIDR notation a line, IPv4 or IPv6, and comments behind a `#`."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from adserve.metering.errors import MeteringError

NETWORKS_MAX = 500_000
WIDEST = {4: 8, 6: 16}
"""A data centre with a shorter prefix would be a good part of the internet: it is a mistake."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class NetworksDamaged(MeteringError):
    """The text is no list of networks; the message names the line."""


class Networks:
    """`digest` tells two lists apart; `count` is how many networks were listed."""

    def __init__(self, networks: Iterable[Network] = (), digest: str = "") -> None:
        listed = list(networks)
        self.count = len(listed)
        self.digest = digest
        self._ranges = {version: _merged(listed, version) for version in WIDEST}

    def hold(self, address: Address) -> bool:
        return self._hold(address.version, int(address), int(address))

    def hold_all_of(self, network: Network) -> bool:
        """Whether every address of it is in the list."""
        return self._hold(network.version, int(network.network_address), int(network.broadcast_address))

    def _hold(self, version: int, first: int, last: int) -> bool:
        starts, ends = self._ranges[version]
        place = bisect_right(starts, first) - 1
        return place >= 0 and last <= ends[place]


def _merged(networks: Iterable[Network], version: int) -> tuple[list[int], list[int]]:
    """First and last addresses of ranges in order, none of which touches the next."""
    starts: list[int] = []
    ends: list[int] = []
    for first, last in sorted(
        (int(network.network_address), int(network.broadcast_address))
        for network in networks
        if network.version == version
    ):
        if ends and first <= ends[-1] + 1:
            ends[-1] = max(ends[-1], last)
        else:
            starts.append(first)
            ends.append(last)
    return starts, ends


NO_NETWORKS = Networks()


def decode_networks(raw: bytes, widest: Mapping[int, int] = WIDEST) -> Networks:
    """Raises NetworksDamaged; a list without any network is taken for a download that failed."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NetworksDamaged("is not text in UTF-8") from error
    networks: list[Network] = []
    for number, line in enumerate(text.splitlines(), 1):
        written = line.partition("#")[0].strip()
        if not written:
            continue
        if len(networks) == NETWORKS_MAX:
            raise NetworksDamaged(f"line {number}: there are more than {NETWORKS_MAX:,} networks")
        try:
            network = ip_network(written)
        except ValueError as error:
            raise NetworksDamaged(f"line {number}: {str(error)[:200]}") from error
        if network.prefixlen < widest[network.version]:
            raise NetworksDamaged(f"line {number}: {network} is wider than any data centre")
        networks.append(network)
    if not networks:
        raise NetworksDamaged("names no network")
    return Networks(networks, hashlib.sha256(raw).hexdigest()[:16])
