"""What a lease book has left."""

from adserve.limits.leases import LeaseBook


def remaining_micros(book: LeaseBook, campaign: int, now_ms: int) -> int:
    """What decisions may still hold."""
    purse = book.purses.get(campaign)
    return 0 if purse is None else max(0, min(purse.paced_micros, purse.free_micros(now_ms)))
