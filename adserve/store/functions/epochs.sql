-- Opens the newest epoch, once everything that earlier ones counted and that is being stored has been stored.
CREATE OR REPLACE FUNCTION open_epoch(p_at timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
DECLARE
  v_epoch bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('adserve.epochs', 0));
  INSERT INTO counter_epochs (opened_at) VALUES (p_at) RETURNING epoch INTO v_epoch;
  RETURN v_epoch;
END $$;
REVOKE ALL ON FUNCTION open_epoch FROM PUBLIC;
GRANT EXECUTE ON FUNCTION open_epoch TO adserve_recorder;

-- Says for a transaction that stores what the epoch `p_epoch` counted, or nothing that was counted where it is null, that it is the
-- newest, and will be until the transaction has ended; else fails: a later one is open, or the database was put back to a moment when
-- it was not open yet. It does not matter when in the transaction it runs.
CREATE OR REPLACE FUNCTION believe_epoch(p_epoch bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
BEGIN
  IF p_epoch IS NULL THEN RETURN; END IF;
  PERFORM pg_advisory_xact_lock_shared(hashtextextended('adserve.epochs', 0));
  IF (SELECT coalesce(max(epoch), 0) FROM counter_epochs) <> p_epoch THEN
    RAISE object_not_in_prerequisite_state USING MESSAGE = 'what was counted before has to be counted again';
  END IF;
END $$;
REVOKE ALL ON FUNCTION believe_epoch FROM PUBLIC;
GRANT EXECUTE ON FUNCTION believe_epoch TO adserve_recorder;
