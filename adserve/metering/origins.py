"""Makes of the source of a report what may be kept of it: no address, no user agent, no device."""

import re
from functools import cache, lru_cache
from importlib.metadata import version
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

from crawleruseragents import CRAWLER_USER_AGENTS_DATA

from adserve.domain.traffic import Origin, Source
from adserve.metering.networks import Address, Networks
from adserve.metering.pseudonyms import Pseudonyms

AGENT_CHARS_MAX = 512
"""So much of a user agent is looked into: a longer one costs a millisecond."""
AGENTS_CACHED_MAX = 4_096
ADDRESSES_CACHED_MAX = 4_096

_KEPT_PREFIX = {4: 24, 6: 48}
_OWN_PREFIX = {4: 32, 6: 64}

CRAWLERS_VERSION = version("crawler-user-agents")
CRAWLERS = tuple(of["pattern"] for of in CRAWLER_USER_AGENTS_DATA)
"""Each is a regular expression, and its own name."""

_AT_ONCE = 25  # of far fewer Python's engine makes too many looks, of far more too slow ones
_SOME = tuple(CRAWLERS[start : start + _AT_ONCE] for start in range(0, len(CRAWLERS), _AT_ONCE))
_ANY_OF = tuple((re.compile("|".join(names)), names) for names in _SOME)
_one = cache(re.compile)


@lru_cache(AGENTS_CACHED_MAX)
def crawlers_of(user_agent: str) -> tuple[str, ...]:
    """The names in the list of crawlers that a user agent has: all of them, as one of ours may be a bot as well."""
    return tuple(
        name
        for any_of, names in _ANY_OF
        if any_of.search(user_agent)
        for name in names
        if _one(name).search(user_agent)
    )


class Place(NamedTuple):
    """An address with the network around it that is kept, and the part of it that one subscriber has."""

    address: Address
    network: str
    own: str


@lru_cache(ADDRESSES_CACHED_MAX)
def place_of(text: str) -> Place | None:
    """None also for an address that is not public: it is a proxy's or a neighbour's, and says nothing of the viewer."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if not address.is_global:
        return None
    kept, own = (
        ip_network(f"{address}/{prefix[address.version]}", strict=False)
        for prefix in (_KEPT_PREFIX, _OWN_PREFIX)
    )
    return Place(address, str(kept), str(own))


class Origins:
    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._pseudonyms = pseudonyms

    def of(self, source: Source, networks: Networks, now_ms: int) -> Origin:
        crawlers = crawlers_of(source.user_agent[:AGENT_CHARS_MAX]) if source.user_agent else ()
        device = self._pseudonym("device", source.device, now_ms) if source.device else None
        place = place_of(source.address) if source.address else None
        if place is None:
            return Origin(crawlers, device=device)
        address = self._pseudonym("address", place.own, now_ms)
        return Origin(crawlers, place.network, address, device, networks.hold(place.address))

    def _pseudonym(self, what: str, name: str, now_ms: int) -> bytes:
        """No viewer's raw id begins like this."""
        return self._pseudonyms.of(f"\0{what} {name}", now_ms)[1]
