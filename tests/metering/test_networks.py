import random
from ipaddress import ip_address, ip_network

import pytest

from adserve.metering.networks import Networks, NetworksDamaged, decode_networks


def test_a_list_holds_what_its_networks_hold() -> None:
    chance = random.Random(3)
    for _ in range(20):
        listed = [
            ip_network((chance.getrandbits(32), chance.randrange(18, 33)), strict=False) for _ in range(200)
        ]
        networks = Networks(listed)
        for network in listed:
            for edge in (int(network[0]) - 1, int(network[0]), int(network[-1]), int(network[-1]) + 1):
                address = ip_address(max(0, min(edge, 2**32 - 1)))
                assert networks.hold(address) == any(address in each for each in listed)


def test_both_families_and_comments() -> None:
    networks = decode_networks(b"# clouds\n\n3.5.140.0/22 # Seoul\n 2600:1f00::/24\r\n192.0.2.7\n")
    assert networks.count == 3
    assert networks.hold(ip_address("3.5.143.255"))
    assert networks.hold(ip_address("192.0.2.7"))
    assert networks.hold(ip_address("2600:1f7f::1"))
    assert not networks.hold(ip_address("3.5.144.0"))
    assert not networks.hold(ip_address("::3.5.140.1"))
    assert networks.digest != decode_networks(b"3.5.140.0/22\n").digest


def test_all_of_a_network_is_held_by_several_that_touch() -> None:
    networks = decode_networks(b"198.51.100.128/25\n198.51.100.0/25\n203.0.113.0/25\n")
    assert networks.hold_all_of(ip_network("198.51.100.0/24"))
    assert not networks.hold_all_of(ip_network("203.0.113.0/24"))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "names no network"),
        (b"# everything was removed\n", "names no network"),
        (b"192.0.2.0/24\n<html>502 Bad Gateway</html>\n", "line 2"),
        (b"192.0.2.0/24\n198.51.100.0/2", "line 2"),  # cut off
        (b"192.0.2.1/24\n", "host bits"),
        (b"0.0.0.0/0\n", "wider than any data centre"),
        (b"2000::/3\n", "wider than any data centre"),
        (b"192.0.2.0/33\n", "line 1"),
        (b"\xff\xfe1\x00", "UTF-8"),
    ],
)
def test_a_damaged_list_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(NetworksDamaged, match=said):
        decode_networks(raw)
