from adserve.database.migrate import run_revisions

run_revisions()
