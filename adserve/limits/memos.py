"""What is remembered of a request that was answered, beside its grant: a retry comes rarely, so it may take its time."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Memos(NamedTuple):
    """Both are given the grant: `keep` makes of a memo what is kept, `again` of that a memo which is as good."""

    keep: Callable[[Any, Any], Any]
    again: Callable[[Any, Any], Any]


AS_THEY_ARE = Memos(lambda memo, _grant: memo, lambda kept, _grant: kept)
