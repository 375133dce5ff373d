"""Money is an integer of micro-units with a currency (ISO 4217). Floats never touch it."""

from typing import NamedTuple

MICROS_MAX = 2**53 - 1


class Money(NamedTuple):
    micros: int
    currency: str
