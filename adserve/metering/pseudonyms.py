"""Stands a pseudonym in for a viewer's raw id, which is never stored.

The one for caps and hides is under a secret that does not rotate, the one for the log under a secret of the
month, so that the log cannot be joined over months.
"""

from bisect import bisect_right
from hashlib import blake2b
from typing import NamedTuple

PSEUDONYM_BYTES = 16


class ViewerSecrets(NamedTuple):
    """`months` are pairs of the month's first millisecond (UTC) and its secret; at least one."""

    cap: bytes
    months: tuple[tuple[int, bytes], ...]


class Pseudonyms:
    """Useless before it has secrets. Next month's is known ahead; a month that had none would go on with the last."""

    def __init__(self, secrets: ViewerSecrets | None = None) -> None:
        if secrets is not None:
            self.use(secrets)

    def use(self, secrets: ViewerSecrets) -> None:
        months = sorted(secrets.months)
        self._starts_ms = [start_ms for start_ms, _ in months]
        self._months = [_keyed(secret) for _, secret in months]
        self._cap = _keyed(secrets.cap)
        self._log, self._from_ms, self._until_ms = self._months[0], 0, 0

    def of(self, raw: str, now_ms: int) -> tuple[bytes, bytes]:
        """The pseudonym for caps and hides, and that for the log: 16 bytes each."""
        if not self._from_ms <= now_ms < self._until_ms:
            self._turn_to(now_ms)
        name = raw.encode("utf-8", "surrogatepass")
        cap, log = self._cap.copy(), self._log.copy()
        cap.update(name)
        log.update(name)
        return cap.digest(), log.digest()

    def _turn_to(self, now_ms: int) -> None:
        nth = max(0, bisect_right(self._starts_ms, now_ms) - 1)
        self._log = self._months[nth]
        self._from_ms = self._starts_ms[nth] if nth else 0
        self._until_ms = self._starts_ms[nth + 1] if nth + 1 < len(self._starts_ms) else 1 << 63


def _keyed(secret: bytes) -> blake2b:
    return blake2b(key=secret, digest_size=PSEUDONYM_BYTES)
