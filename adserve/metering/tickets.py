"""Seals tickets and opens them again.

The wire form is base64url without padding of: version (1 byte), key id (4 bytes), nonce (12 bytes), and the
AES-256-GCM-SIV (RFC 8452) of the msgpack of the ticket, with all bytes before it authenticated. The nonce is
the ticket id's own low bytes, so sealing the same ticket again gives the same token.
"""

from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

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

_VERSION = b"\x01"
_HEADER_BYTES = 17
_TAG_BYTES = 16
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
"""From a token to plain base64; what is good there and not in a token is good in neither."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Ticket).decode


class TicketKey(NamedTuple):
    """`opens_until_ms` is None while no later key has taken over."""

    id: int
    secret: bytes
    seals_from_ms: int
    opens_until_ms: int | None


class _Cipher(NamedTuple):
    seals_from_ms: int
    opens_until_ms: int | None
    header: bytes
    aead: AESGCMSIV


class Sealer:
    """Holds the keys of this moment. `use` takes the newest set whenever it was read again.

    A ticket of a viewer who was erased since opens without the viewer's keys.
    """

    def __init__(self, keys: Iterable[TicketKey] = (), erased: Erased | None = None) -> None:
        self._erased = erased or Erased()
        self._by_header: dict[bytes, _Cipher] = {}
        self._newest_first: list[_Cipher] = []
        self.use(keys)

    def use(self, keys: Iterable[TicketKey]) -> None:
        ciphers = [
            _Cipher(
                key.seals_from_ms,
                key.opens_until_ms,
                _VERSION + key.id.to_bytes(4, "big"),
                AESGCMSIV(key.secret),
            )
            for key in keys
        ]
        self._by_header = {cipher.header: cipher for cipher in ciphers}
        self._newest_first = sorted(ciphers, key=lambda cipher: -cipher.seals_from_ms)

    def seal(self, ticket: Ticket) -> str:
        """The key is that of the moment of issue, so that a repeated answer carries the same token."""
        cipher = self._sealing(ticket.issued_at_ms)
        nonce = ticket.ticket.bytes[4:]
        header = cipher.header + nonce
        sealed = cipher.aead.encrypt(nonce, _encode(ticket), header)
        return _base64url(header + sealed).decode("ascii")

    def open(self, token: str, now_ms: int) -> Ticket:
        """Raises TicketRefused, and nothing else, on whatever is not one of our tickets to the letter."""
        wire = _unwrap(token)
        header = wire[:_HEADER_BYTES]
        cipher = self._by_header.get(header[:5])
        if cipher is None or (cipher.opens_until_ms is not None and now_ms > cipher.opens_until_ms):
            raise TicketRefused("the ticket was sealed with a key that is not known here")
        try:
            return self._erased.strip(_decode(cipher.aead.decrypt(header[5:], wire[_HEADER_BYTES:], header)))
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
