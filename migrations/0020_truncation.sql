-- No day of events is emptied: of the triggers of `events` only those for each row hold on its partitions.

-- Gives every table that is partitioned by range a partition for each day from `first` to `last`; answers how many it made.
-- Attached, not created in place: that would stop every reader and writer of the parent for the moment.
CREATE OR REPLACE FUNCTION ensure_partitions(first date, last date) RETURNS integer LANGUAGE plpgsql AS $$
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
    IF parent = 'events' THEN
      EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON adserve.%I FOR EACH STATEMENT EXECUTE FUNCTION adserve.refuse_change()',
                     parent || to_char(day, '_YYYYMMDD'));
    END IF;
    EXECUTE format('ALTER TABLE adserve.%2$I ATTACH PARTITION adserve.%1$I FOR VALUES FROM (%3$L) TO (%4$L)',
                   parent || to_char(day, '_YYYYMMDD'), parent, day, day + 1);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;

DO $$
DECLARE
  day regclass;
BEGIN
  FOR day IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'events'::regclass ORDER BY inhrelid::regclass::text LOOP
    EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION adserve.refuse_change()', day);
  END LOOP;
END $$;
