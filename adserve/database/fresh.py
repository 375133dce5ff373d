"""Databases: those that are made for one purpose and dropped after it, as a test's or a replay's, and the one that stays."""

from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg

from adserve.database import statements

SQL = statements.load(Path(__file__).parent / "sql" / "fresh.sql")


async def create(url: str, name: str, template: str = "template1") -> str:
    """Makes a database on the server of `url` and answers its URL. Nobody may be connected to the template."""
    await _run(url, SQL.create, name, template)
    return at(url, name)


async def drop(url: str, name: str) -> None:
    """Drops a database if it is there, ending whoever is connected to it. `url` names another database."""
    await _run(url, SQL.drop, name)


async def ensure(url: str, name: str) -> str:
    """Makes a database unless it is there."""
    connection = await asyncpg.connect(url)
    try:
        if not await connection.fetchval(SQL.exists, name):
            await connection.execute(await connection.fetchval(SQL.create, name, "template1"))
    finally:
        await connection.close()
    return at(url, name)


def at(url: str, name: str) -> str:
    """The URL of another database on the same server."""
    return urlsplit(url)._replace(path="/" + quote(name, safe="")).geturl()


async def _run(url: str, statement: str, *names: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(await connection.fetchval(statement, *names))
    finally:
        await connection.close()
