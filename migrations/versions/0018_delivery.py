"""delivery"""

from adserve.database.migrate import run_sql

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    run_sql("0018_delivery.sql")
