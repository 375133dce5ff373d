-- A row is the revision that a database is at, and which functions are in place.

-- name: standing
SELECT version_num, obj_description('adserve'::regnamespace, 'pg_namespace') FROM adserve.alembic_version;
