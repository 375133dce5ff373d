"""Why metering could not do what it was asked."""


class MeteringError(Exception):
    """What this room raises."""


class TicketRefused(MeteringError):
    """The token is not a ticket that we sealed; the message is fit for its bearer."""


class RecorderUnavailable(MeteringError):
    """Not everything that was given is durable now: the caller is to send it again."""

    def __init__(self, reason: str, retry_after_s: int = 2) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class RecorderFull(RecorderUnavailable):
    """More events wait than the queue may hold."""

    def __init__(self) -> None:
        super().__init__("too many events are waiting to be recorded")


class SpoolFull(RecorderUnavailable):
    """The ledger is away, and what keeps events meanwhile has no room for more."""

    def __init__(self) -> None:
        super().__init__("the ledger is away, and the spool is full", retry_after_s=10)


class JournalContended(MeteringError):
    """The batch lost against another one and left nothing behind: trying again will do."""


class JournalOutdated(MeteringError):
    """Events of the batch were counted by counters that have lost something since, and it left nothing behind: they are
    to be judged again."""


class JournalRejected(MeteringError):
    """Something in the batch cannot be stored, and it left nothing behind: trying again will not help."""


class DayMissing(JournalRejected):
    """The day on which a ticket of the batch was issued has no partition: not yet, or not any more."""


class JournalAway(MeteringError):
    """Whether the batch was stored is not known, or it was not for a reason that is not in the batch."""
