-- Moves at most `p_most` deltas into the roll-ups that they belong to, and answers how many.
--
-- What is added is what was deleted, in one statement: whenever a delta is committed, and however many compactors run, one
-- of them takes it, once. Settlement writes no row that this touches. Roll-ups are written in key order.
CREATE OR REPLACE FUNCTION compact_rollups(p_most integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  WITH taken AS (
    DELETE FROM rollup_deltas
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM rollup_deltas LIMIT p_most FOR UPDATE SKIP LOCKED))
    RETURNING *
  ), added AS (
    INSERT INTO rollups AS r (hour, campaign_id, ad_id, kind, outcome, currency, advertiser_id, events, billed_micros, invalid_micros)
    SELECT hour, campaign_id, ad_id, kind, outcome, currency, advertiser_id, sum(events), sum(billed_micros), sum(invalid_micros)
    FROM taken GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT (hour, campaign_id, ad_id, kind, outcome, currency, advertiser_id) DO UPDATE
    SET events = r.events + excluded.events, billed_micros = r.billed_micros + excluded.billed_micros,
        invalid_micros = r.invalid_micros + excluded.invalid_micros
  )
  SELECT count(*) FROM taken;
$$;
REVOKE ALL ON FUNCTION compact_rollups FROM PUBLIC;
GRANT EXECUTE ON FUNCTION compact_rollups TO adserve_recorder;
