-- A row is the revision that a database is at.

-- name: revision
SELECT version_num FROM adserve.alembic_version;
