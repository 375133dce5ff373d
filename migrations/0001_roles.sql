-- The roles of the cluster, the schema of this database, and what the database room keeps in it.

-- Roles belong to the whole cluster: several databases may be migrated at once, and another may have made them before.
DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['adserve_owner', 'adserve_recorder', 'adserve_catalogue', 'adserve_tenant',
                              'adserve_operator', 'adserve_analyst'] LOOP
    IF to_regrole(name) IS NULL THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN NOBYPASSRLS', name);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
      END;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = name AND (rolsuper OR rolbypassrls OR rolcanlogin)) THEN
      RAISE EXCEPTION 'role % must be NOSUPERUSER NOBYPASSRLS NOLOGIN', name
        USING HINT = format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS NOLOGIN', name);
    END IF;
    IF NOT pg_has_role(current_user, name, 'SET') THEN
      BEGIN
        EXECUTE format('GRANT %I TO %I WITH INHERIT FALSE, SET TRUE', name, current_user);
      EXCEPTION WHEN unique_violation THEN
        NULL;
      END;
    END IF;
  END LOOP;
END $$;

GRANT USAGE, CREATE ON SCHEMA adserve TO adserve_owner;
ALTER TABLE alembic_version OWNER TO adserve_owner;
ALTER SCHEMA adserve OWNER TO adserve_owner;

SET LOCAL ROLE adserve_owner;

-- A login that is no superuser inherits nothing from its roles, but has to see what is applied before it takes one.
GRANT USAGE ON SCHEMA adserve TO SESSION_USER;
GRANT SELECT ON alembic_version TO SESSION_USER;

GRANT USAGE ON SCHEMA adserve
  TO adserve_recorder, adserve_catalogue, adserve_tenant, adserve_operator, adserve_analyst;

-- A row is a process that took the serving lock. Without a heartbeat it has not served yet; without a release nobody
-- knows whether it still does, unless its lock file (`home`) is free.
CREATE TABLE serving (
  holder        uuid PRIMARY KEY,
  home          text NOT NULL,
  taken_at      timestamptz NOT NULL,
  heartbeat_at  timestamptz,
  released_at   timestamptz
);
GRANT SELECT, INSERT, UPDATE, DELETE ON serving TO adserve_catalogue;

-- Gives every table that is partitioned by range a partition for each day from `first` to `last`; answers how many it made.
-- Attached, not created in place: that would stop every reader and writer of the parent for the moment.
CREATE FUNCTION ensure_partitions(first date, last date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  parent text;
  day date;
  made integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('adserve.partitions', 0));
  FOR parent, day IN
    SELECT c.relname, first + n
    FROM pg_partitioned_table p
    JOIN pg_class c ON c.oid = p.partrelid
    CROSS JOIN generate_series(0, last - first) n
    WHERE c.relnamespace = 'adserve'::regnamespace AND p.partstrat = 'r'
      AND to_regclass(format('adserve.%I', c.relname || to_char(first + n, '_YYYYMMDD'))) IS NULL
    ORDER BY 1, 2
  LOOP
    EXECUTE format('CREATE TABLE adserve.%1$I (LIKE adserve.%2$I INCLUDING ALL)', parent || to_char(day, '_YYYYMMDD'), parent);
    EXECUTE format('ALTER TABLE adserve.%2$I ATTACH PARTITION adserve.%1$I FOR VALUES FROM (%3$L) TO (%4$L)',
                   parent || to_char(day, '_YYYYMMDD'), parent, day, day + 1);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;
REVOKE EXECUTE ON FUNCTION ensure_partitions FROM PUBLIC;
