"""Knows whether a database has the schema that this code needs, and brings it there from a running program."""

import asyncio
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg

from adserve.database import statements
from adserve.database.refusal import DatabaseRefused

SQL = statements.load(Path(__file__).parent / "sql" / "schema.sql")
REVISIONS = Path(__file__).parents[2] / "migrations" / "versions"
FUNCTIONS = Path(__file__).parents[1] / "store" / "functions"
CONNECT_TIMEOUT_S = 10.0


async def check(url: str) -> None:
    """Raises DatabaseRefused for a database that cannot be reached, or that misses a revision. One that is ahead of this
    code is fine: migrations expand before they contract."""
    revision, _ = await _standing(url)
    newest = _newest_revision()
    if revision is None or revision < newest:
        raise DatabaseRefused(
            f"the database is at revision {revision or 'none'} and needs {newest}: run `adserve migrate`"
        )


def name_of_functions() -> str:
    """Of the functions in FUNCTIONS as they are; `adserve migrate` leaves it in the database beside them."""
    texts = b"\0".join(path.read_bytes() for path in sorted(FUNCTIONS.glob("*.sql")))
    return f"functions {hashlib.sha256(texts).hexdigest()}"


async def _standing(url: str) -> tuple[str | None, str | None]:
    """The revision, None where there is none, and the name of the functions in place."""
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseRefused(f"PostgreSQL cannot be reached: {error or type(error).__name__}") from error
    try:
        return tuple(await connection.fetchrow(SQL.standing) or (None, None))
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return None, None
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseRefused(
            f"PostgreSQL: {error}: the user of ADSERVE_DATABASE_URL has to be the one that migrated, or a superuser"
        ) from error
    finally:
        await connection.close()


def _newest_revision() -> str:
    return max(path.name[:4] for path in REVISIONS.glob("[0-9]*.py"))


async def update(url: str, progress: Callable[[str], None]) -> None:
    """Runs `adserve migrate`, unless there is nothing for it to do, as a process of its own, so that a service never loads the
    migration tool: that takes a second. A database that is ahead of this code stays as it is. Raises DatabaseRefused with what
    it said."""
    revision, functions = await _standing(url)
    newest = _newest_revision()
    if revision is not None and (revision > newest or (revision, functions) == (newest, name_of_functions())):
        return
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "adserve", "migrate"),
        env={**os.environ, "ADSERVE_DATABASE_URL": url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert child.stdout is not None  # noqa: S101 - for the type checker
    said = []
    try:
        async for line in child.stdout:
            said.append(line.decode(errors="replace").rstrip())
            progress(said[-1])
        status = await child.wait()
    except BaseException:
        child.kill()  # leaves whole revisions only
        raise
    if status != 0:
        raise DatabaseRefused("\n".join(said))
