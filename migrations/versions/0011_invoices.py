"""invoices"""

from adserve.database.migrate import run_sql

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_sql("0011_invoices.sql")
