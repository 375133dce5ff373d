"""erasures"""

from adserve.database.migrate import run_sql

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    run_sql("0013_erasures.sql")
