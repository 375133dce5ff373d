"""roles, schema, serving, partitions"""

from adserve.database.migrate import run_sql

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_sql("0001_roles.sql", as_owner=False)
