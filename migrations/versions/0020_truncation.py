"""truncation"""

from adserve.database.migrate import run_sql

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    run_sql("0020_truncation.sql")
