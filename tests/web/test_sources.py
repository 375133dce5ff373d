import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from adserve.metering.networks import NO_NETWORKS, decode_networks
from adserve.web.sources import FORWARDED_MAX, Sources

PROXIES = decode_networks(b"10.0.0.0/8\n2001:db8:1::/48\n")


def address(peer: str, *forwarded: str, sources: Sources | None = None) -> str | None:
    headers = CIMultiDict(("X-Forwarded-For", each) for each in forwarded)
    request = make_mocked_request("GET", "/i.gif", headers=headers).clone(remote=peer)
    return (sources or Sources(PROXIES)).of(request).address


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("81.2.69.142", (), "81.2.69.142"),
        ("10.0.0.1", ("81.2.69.142",), "81.2.69.142"),
        (
            "10.0.0.1",
            ("6.6.6.6, 81.2.69.142, 10.3.0.1",),
            "81.2.69.142",
        ),  # what a client writes is on the left
        ("10.0.0.1", ("6.6.6.6", "81.2.69.142,10.3.0.1"), "81.2.69.142"),
        ("10.0.0.1", ("81.2.69.142:4711",), "81.2.69.142"),
        ("2001:db8:1::1", ("[2a02:8109::7]:443",), "2a02:8109::7"),
        ("10.0.0.1", ("2a02:8109::7",), "2a02:8109::7"),
        ("81.2.69.142", ("1.1.1.1",), "81.2.69.142"),  # no proxy of ours: it is not believed
        ("10.0.0.1", (), None),
        ("10.0.0.1", ("10.9.9.9",), None),
        ("10.0.0.1", ("1.1.1.1, 10.0.0.2",) * FORWARDED_MAX, "1.1.1.1"),
        ("10.0.0.1", ("1.1.1.1" + ", 10.0.0.2" * 10_000,), None),
    ],
)
def test_the_last_who_is_no_proxy_of_ours(
    peer: str, forwarded: tuple[str, ...], expected: str | None
) -> None:
    assert address(peer, *forwarded) == expected


def test_garbage_is_no_address_of_a_proxy() -> None:
    assert address("10.0.0.1", "unknown, \\u0000") == "\\u0000"
    assert address("10.0.0.1", "") == ""


def test_without_proxies_nothing_forwarded_is_believed() -> None:
    assert address("10.0.0.1", "1.1.1.1", sources=Sources(NO_NETWORKS)) == "10.0.0.1"
