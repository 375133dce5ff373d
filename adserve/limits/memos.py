"""What is remembered of a request that was answered: a retry comes rarely, so it may take its time."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Memos(NamedTuple):
    """`keep` makes of a request's digest, its grant and its memo what is kept, `again` of that three which are as good."""

    keep: Callable[[bytes, Any, Any], Any]
    again: Callable[[Any], tuple[bytes, Any, Any]]


AS_THEY_ARE = Memos(lambda *told: told, lambda kept: kept)
