-- Which catalogue version a row changed in, so that a replica reads what is new to it and nothing else.
--
-- The one row of catalogue_version is locked from a transaction's first change to its commit. So versions become visible
-- in their order: whoever reads version n sees every row that changed in it or before, and none that changed after.

ALTER TABLE advertisers ADD COLUMN changed_in bigint NOT NULL DEFAULT 1;
ALTER TABLE campaigns   ADD COLUMN changed_in bigint NOT NULL DEFAULT 1;
ALTER TABLE creatives   ADD COLUMN changed_in bigint NOT NULL DEFAULT 1;
ALTER TABLE ads         ADD COLUMN changed_in bigint NOT NULL DEFAULT 1;
CREATE INDEX ON advertisers (changed_in);
CREATE INDEX ON campaigns (changed_in);
CREATE INDEX ON creatives (changed_in);
CREATE INDEX ON ads (changed_in);
CREATE INDEX ON ads (creative_id);
CREATE INDEX ON campaigns (ends_at);

-- `whole_from` is the version of the last deletion: it left no row that tells of it, so whoever knows an older version
-- reads everything.
ALTER TABLE catalogue_version ADD COLUMN whole_from bigint NOT NULL DEFAULT 1;

CREATE OR REPLACE FUNCTION catalogue_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = adserve, pg_temp AS $$
BEGIN
  UPDATE catalogue_version SET
    version = version + 1,
    whole_from = CASE WHEN TG_OP IN ('DELETE', 'TRUNCATE') AND TG_TABLE_NAME <> 'rollouts' THEN version + 1 ELSE whole_from END;
  PERFORM pg_notify('adserve_catalogue', '');
  RETURN NULL;
END $$;

CREATE FUNCTION stamp_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = adserve, pg_temp AS $$
BEGIN
  NEW.changed_in := (SELECT version FROM catalogue_version);
  RETURN NEW;
END $$;

DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['advertisers', 'campaigns', 'creatives', 'ads'] LOOP
    EXECUTE format('DROP TRIGGER changed ON %I', name);
    -- Before the rows, which are stamped with the version that this makes.
    EXECUTE format('CREATE TRIGGER changed BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION catalogue_changed()', name);
    EXECUTE format('CREATE TRIGGER stamped BEFORE INSERT OR UPDATE ON %I '
                   'FOR EACH ROW EXECUTE FUNCTION stamp_change()', name);
  END LOOP;
END $$;
