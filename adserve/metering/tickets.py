"""Seals tickets and opens them again.

The wire form is base64url without padding of: version (1 byte), key id (4 bytes), nonce (12 bytes), and the AES-256-GCM of
the msgpack of the ticket, with all bytes before it authenticated. The nonce is a keyed hash of what is sealed (the synthetic
IV of Rogaway and Shrimpton, "Deterministic Authenticated-Encryption", 2006): the same ticket gives the same token, and
no two tickets share a nonce, whatever their ids. AES-GCM-SIV (RFC 8452) does the same in twice the time, as OpenSSL has it.
"""

from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adserve.domain.tickets import Ticket
from adserve.domain.time import DAY_MS
from adserve.limits.erased import Erased
from adserve.metering.errors import TicketRefused

TOKEN_CHARS_MAX = 4_096
TICKET_TTL_MAX_MS = DAY_MS

SEALING_PERIOD_MS = 30 * DAY_MS
"""How long a key seals before the next one takes over."""
AHEAD_MS = 5 * 60_000
"""How long before it seals a key is made: every process has read it by then."""
OPENING_TAIL_MS = TICKET_TTL_MAX_MS + 7 * DAY_MS
"""How long a key opens after it sealed last: late events are still known for ours, and stored."""

_VERSION = b"\x02"
_NAME_BYTES = 5
"""Of the version and the key's id."""
_NONCE_BYTES = 12
_HEADER_BYTES = _NAME_BYTES + _NONCE_BYTES
_TAG_BYTES = 16
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
"""From a token to plain base64; what is good there and not in a token is good in neither."""

_encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
_decode = msgspec.msgpack.Decoder(Ticket).decode


class TicketKey(NamedTuple):
    """`opens_until_ms` is None while no later key has taken over."""

    id: int
    secret: bytes
    seals_from_ms: int
    opens_until_ms: int | None


class _Cipher:
    """One key at work: the secret itself makes no more than the keys of the hash and of the cipher."""

    def __init__(self, key: TicketKey) -> None:
        self.seals_from_ms = key.seals_from_ms
        self.opens_until_ms = key.opens_until_ms
        self.name = _VERSION + key.id.to_bytes(4, "big")
        self._hash = blake2b(key=_derived(key.secret, b"nonce"), digest_size=_NONCE_BYTES)
        self._aead = AESGCM(_derived(key.secret, b"cipher"))

    def seal(self, text: bytes) -> bytes:
        synthetic = self._hash.copy()
        synthetic.update(text)
        header = self.name + synthetic.digest()
        return header + self._aead.encrypt(header[_NAME_BYTES:], text, header)

    def open(self, wire: bytes) -> bytes:
        """Raises InvalidTag."""
        header = wire[:_HEADER_BYTES]
        return self._aead.decrypt(header[_NAME_BYTES:], wire[_HEADER_BYTES:], header)


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return blake2b(key=secret, person=purpose, digest_size=32).digest()


class Sealer:
    """Holds the keys of this moment. `use` takes the newest set whenever it was read again.

    A ticket of a viewer who was erased since opens without the viewer's keys.
    """

    def __init__(self, keys: Iterable[TicketKey] = (), erased: Erased | None = None) -> None:
        self._erased = erased or Erased()
        self._by_name: dict[bytes, _Cipher] = {}
        self._newest_first: list[_Cipher] = []
        self.use(keys)

    def use(self, keys: Iterable[TicketKey]) -> None:
        ciphers = [_Cipher(key) for key in keys]
        self._by_name = {cipher.name: cipher for cipher in ciphers}
        self._newest_first = sorted(ciphers, key=lambda cipher: -cipher.seals_from_ms)

    def seal(self, ticket: Ticket) -> str:
        """The key is that of the moment of issue, so that a repeated answer carries the same token."""
        return _base64url(self._sealing(ticket.issued_at_ms).seal(_encode(ticket))).decode("ascii")

    def open(self, token: str, now_ms: int) -> Ticket:
        """Raises TicketRefused, and nothing else, on whatever is not one of our tickets to the letter."""
        wire = _unwrap(token)
        cipher = self._by_name.get(wire[:_NAME_BYTES])
        if cipher is None or (cipher.opens_until_ms is not None and now_ms > cipher.opens_until_ms):
            raise TicketRefused("the ticket was sealed with a key that is not known here")
        try:
            return self._erased.strip(_decode(cipher.open(wire)))
        except InvalidTag:
            raise TicketRefused("the seal does not match") from None
        except (msgspec.DecodeError, ValueError):
            raise TicketRefused("the ticket has a form that is not known here") from None

    def _sealing(self, at_ms: int) -> _Cipher:
        for cipher in self._newest_first:
            if cipher.seals_from_ms <= at_ms:
                return cipher
        raise LookupError(f"no ticket key seals at {at_ms}")


def _base64url(wire: bytes) -> bytes:
    """Without padding; in half the time of the standard library's own."""
    return b2a_base64(wire, newline=False).translate(_URL_SAFE).rstrip(b"=")


def _unwrap(token: str) -> bytes:
    if len(token) > TOKEN_CHARS_MAX:
        raise TicketRefused("the ticket is too long")
    try:
        text = token.encode("ascii").translate(_STANDARD) + b"=" * (-len(token) % 4)
        wire = a2b_base64(text, strict_mode=True)
    except ValueError:
        raise TicketRefused("the ticket is not base64url") from None
    # The decoder ignores the spare bits of the last character: only one spelling of a ticket is good.
    last = len(wire) % 3
    if last and b2a_base64(wire[-last:], newline=False) != text[-4:]:
        raise TicketRefused("the ticket is not base64url")
    if len(wire) < _HEADER_BYTES + _TAG_BYTES:
        raise TicketRefused("the ticket is too short")
    return wire
