"""What can go wrong between us and the database, as the rooms above speak of it."""

import asyncpg


class StoreError(Exception):
    """A store could not do what it was asked."""


class Away(StoreError):
    """PostgreSQL cannot be reached, or did not answer in time."""


class Missing(StoreError):
    """There is no such thing, or it is another tenant's: nobody may learn which."""


class Outdated(StoreError):
    """The thing has changed since the caller read it."""


class UnknownReference(StoreError):
    """`field` names something that does not exist, or that is another tenant's."""

    def __init__(self, field: str) -> None:
        super().__init__("does not exist")
        self.field = field


class Contradiction(StoreError):
    """What is wanted contradicts what is already so."""


class KeyReused(StoreError):
    """An idempotency key came before with another request."""


class Unanswerable(StoreError):
    """A question that takes too long, or is about what is not kept any more."""


AWAY = (
    OSError,  # TimeoutError included
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,  # what was the primary is a standby now
    asyncpg.InternalClientError,  # what the driver says when a server is killed in the middle of a statement
)
