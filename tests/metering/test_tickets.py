import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from sizes import record, sized, whole_run
from world import NOW_MS

from adserve.domain.ids import uuid7
from adserve.domain.tickets import Ticket
from adserve.domain.time import HOUR_MS
from adserve.metering.errors import TicketRefused
from adserve.metering.tickets import TOKEN_CHARS_MAX, Sealer, TicketKey

KEY = TicketKey(1, b"k" * 32, 0, None)
MUTANTS = sized(1_000_000, 100_000)


def make_ticket(at_ms: int = NOW_MS, chance: int = 7) -> Ticket:
    return Ticket(
        ticket=uuid7(at_ms, chance),
        decision=uuid7(at_ms, chance + 1),
        advertiser=3,
        campaign=7,
        ad=12,
        creative=31,
        revision=2,
        viewer_cap=b"c" * 16,
        viewer_log=b"l" * 16,
        price_micros=2_500,
        currency="USD",
        billable="impression",
        lease=9,
        budget_day=739_617,
        epoch=1,
        surface="status",
        country="ID",
        platform="android",
        position=4,
        propensity=1.0,
        model="prior",
        catalogue_version=5,
        rules_version=1,
        arm="exposed",
        issued_at_ms=at_ms,
        expires_at_ms=at_ms + HOUR_MS,
        rules=(("c7", 3, HOUR_MS),),
        labels=("food",),
    )


def mutants(token: str, count: int) -> Iterator[str]:
    chance = random.Random(1)
    wire = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for _ in range(count):
        changed = bytearray(wire)
        match chance.randrange(4):
            case 0:
                changed[chance.randrange(len(wire))] ^= 1 << chance.randrange(8)
            case 1:
                del changed[chance.randrange(len(wire)) :]
            case 2:
                changed.insert(chance.randrange(len(wire) + 1), chance.randrange(256))
            case _:
                one, two = sorted(chance.sample(range(len(wire) + 1), 2))
                changed[one:two] = chance.randbytes(two - one)
        if bytes(changed) != wire:
            yield urlsafe_b64encode(changed).rstrip(b"=").decode()


def accepted(sealer: Sealer, tokens: Iterator[str]) -> int:
    count = 0
    for token in tokens:
        try:
            sealer.open(token, NOW_MS)
        except TicketRefused:
            continue
        count += 1
    return count


def test_a_ticket_comes_back_whole_and_seals_to_the_same_bytes() -> None:
    sealer, ticket = Sealer([KEY]), make_ticket()
    token = sealer.seal(ticket)
    assert sealer.open(token, NOW_MS) == ticket
    assert sealer.seal(ticket) == token
    assert "=" not in token


@whole_run
def test_no_mutant_is_accepted() -> None:
    sealer = Sealer([KEY])
    through = accepted(sealer, mutants(sealer.seal(make_ticket()), MUTANTS))
    record("mutated tickets", rounds=MUTANTS, accepted=through)
    assert through == 0


class UnsealedTwin(Sealer):
    """Encrypts as well, but with nothing that proves where a ticket comes from."""

    def seal(self, ticket: Ticket) -> str:
        return urlsafe_b64encode(self._crypt(msgspec.msgpack.encode(ticket))).rstrip(b"=").decode()

    def open(self, token: str, now_ms: int) -> Ticket:
        try:
            wire = urlsafe_b64decode(token + "=" * (-len(token) % 4))
            return msgspec.msgpack.decode(self._crypt(wire), type=Ticket)
        except ValueError as error:
            raise TicketRefused(str(error)) from error

    @staticmethod
    def _crypt(data: bytes) -> bytes:
        return Cipher(algorithms.AES(b"k" * 32), modes.CTR(b"n" * 16)).encryptor().update(data)


def test_control_a_twin_without_a_seal_accepts_mutants() -> None:
    twin = UnsealedTwin()
    through = accepted(twin, mutants(twin.seal(make_ticket()), 2_000))
    record("mutated tickets", control_rounds=2_000, control_accepted=through)
    assert through > 0


def test_only_one_spelling_of_a_ticket_is_good() -> None:
    sealer = Sealer([KEY])
    tokens = {
        len(token) % 4: token for chance in range(99) if (token := sealer.seal(make_ticket(NOW_MS + chance)))
    }
    for token in tokens.values():
        for spelling in (token + "=", token + "====", " " + token, token + "\n", token[:9] + "!" + token[9:]):
            with pytest.raises(TicketRefused):
                sealer.open(spelling, NOW_MS)


@given(st.text(max_size=200) | st.binary(max_size=400).map(lambda data: urlsafe_b64encode(data).decode()))
def test_nothing_but_a_refusal_comes_of_any_text(token: str) -> None:
    with pytest.raises(TicketRefused):
        Sealer([KEY]).open(token, NOW_MS)


def test_a_huge_token_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(TicketRefused, match="too long"):
        Sealer([KEY]).open("A" * (TOKEN_CHARS_MAX + 1), NOW_MS)


def test_a_sealed_form_of_another_version_is_refused() -> None:
    sealer = Sealer([KEY])
    cipher = sealer._sealing(NOW_MS)
    for plain in (b"", b"\xc1", msgspec.msgpack.encode([1, 2]), msgspec.msgpack.encode({"ticket": "x"})):
        with pytest.raises(TicketRefused, match="form"):
            sealer.open(urlsafe_b64encode(cipher.seal(plain)).rstrip(b"=").decode(), NOW_MS)


def test_no_two_tickets_share_a_nonce_be_their_ids_the_same() -> None:
    ticket = make_ticket()
    nonces = {
        urlsafe_b64decode(Sealer([KEY]).seal(structs.replace(ticket, price_micros=price)) + "==")[5:17]
        for price in range(1_000)
    }
    assert len(nonces) == 1_000


def test_the_next_key_seals_from_its_time_on_and_the_old_one_opens_until_its() -> None:
    old, new = KEY._replace(opens_until_ms=NOW_MS + 9), TicketKey(2, b"n" * 32, NOW_MS, None)
    before, after = make_ticket(NOW_MS - 1), make_ticket(NOW_MS)
    only_old, both = Sealer([KEY]), Sealer([old, new])
    assert both.seal(before) == only_old.seal(before)
    assert both.open(only_old.seal(before), NOW_MS + 9) == before
    assert both.open(both.seal(after), NOW_MS + 10) == after
    with pytest.raises(TicketRefused, match="key"):
        both.open(only_old.seal(before), NOW_MS + 10)
    with pytest.raises(TicketRefused, match="key"):
        only_old.open(both.seal(after), NOW_MS)
