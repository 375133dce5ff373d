"""Brings a database to the newest schema. Only `adserve migrate` imports this: a service has no use for alembic.

A revision is a few lines in migrations/versions that name the plain SQL file beside them. Each is one transaction
together with its entry in `adserve.alembic_version`, so a killed migration leaves whole revisions only. Functions stand
in files of their own, which are put in place anew each time: an edited one needs no revision.
"""

import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from alembic import command, context, op
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import create_engine, pool
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from adserve.database import statements
from adserve.database.refusal import DatabaseRefused
from adserve.database.schema import FUNCTIONS, name_of_functions

MIGRATIONS = Path(__file__).parents[2] / "migrations"
SQL = statements.load(Path(__file__).parent / "sql" / "migrate.sql")
LOCK_RETRY_S = 0.1

Progress = Callable[[str], None]


def migrate(url: str, progress: Progress) -> None:
    """Applies what is missing, or raises DatabaseRefused with what PostgreSQL said.

    Several may start at once: one works, the others wait and find nothing left to do.
    """
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=pool.NullPool
    )
    try:
        with engine.connect() as connection:
            _wait_for_lock(connection, progress)
            connection.exec_driver_sql(SQL.create_schema)
            connection.exec_driver_sql(SQL.search_path)
            connection.commit()
            command.upgrade(_config(connection, progress), "head")
            _replace_functions(connection)
    except (psycopg.Error, SQLAlchemyError, CommandError) as error:
        said = getattr(error, "orig", None) or error  # what PostgreSQL said, without what SQLAlchemy adds
        raise DatabaseRefused(f"the database could not be migrated: {said}") from error


def _config(connection: Connection, progress: Progress) -> Config:
    config = Config(attributes={"connection": connection, "progress": progress})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    return config


def run_sql(name: str, *, as_owner: bool = True) -> None:
    """Executes migrations/<name> inside a revision, as adserve_owner, which shall own whatever it creates."""
    context.config.attributes["progress"](f"migrating: {name}")
    _execute(op.get_bind(), (MIGRATIONS / name).read_text(encoding="utf-8"), as_owner=as_owner)


def run_revisions() -> None:
    """What migrations/env.py does: walks the missing revisions on the connection that holds the lock."""
    context.configure(
        connection=context.config.attributes["connection"],
        version_table_schema="adserve",
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _replace_functions(connection: Connection) -> None:
    """Functions belong to the code that calls them: each migration puts today's in place, all at once."""
    connection.commit()  # ends what the look at the version began
    with connection.begin():  # the driver's own cursor begins nothing that would be committed here
        for path in sorted(FUNCTIONS.glob("*.sql")):
            _execute(connection, path.read_text(encoding="utf-8"), as_owner=True)
        noting = connection.exec_driver_sql(SQL.note_functions, (name_of_functions(),)).scalar_one()
        _execute(connection, noting, as_owner=True)


def _execute(connection: Connection, sql: str, *, as_owner: bool) -> None:
    # The driver's own cursor: several statements in one string, and `%` and `:` mean themselves.
    cursor = connection.connection.cursor()
    if as_owner:
        cursor.execute(SQL.become_owner)
    cursor.execute(sql)
    cursor.close()


def _wait_for_lock(connection: Connection, progress: Progress) -> None:
    # Asking again, not waiting inside PostgreSQL: a waiting statement's snapshot would hold up CREATE INDEX CONCURRENTLY.
    told = False
    while not connection.exec_driver_sql(SQL.lock).scalar():
        connection.commit()
        if not told:
            progress("another migration is running; waiting for it")
            told = True
        time.sleep(LOCK_RETRY_S)
    connection.commit()
