-- Settles one batch of events in the transaction of the call: each key is stored once, and what is new and billable captures
-- from its lease, is posted and counted. Answers a row for each event that became something else than it was given as, in
-- any order: what did not fit its lease, and duplicates with the id of the first, as `accepted` where that one waits in
-- `pending_events`: whoever settles it takes it from there first, in the same transaction. No row says that it was stored as given.
--
-- No two batches can deadlock: leases are locked first and in id order, then keys are written in key order, then the
-- maps to viewers in the same. A billable ticket has one lease, so two batches with it take turns there, and what the
-- second reads of the lease and of the first one's events is committed.
--
-- What is there already of the tickets is looked up once, for the keys of the events and of the maps: with the first event of a ticket
-- its viewer was stored, or was not to be. So nothing is inserted ON CONFLICT, which looks each key up again and writes a second
-- record of each row into the log; who meets a key that was stored meanwhile looks again. And where a lease has enough for all
-- that is asked of it, duplicates too, no event is weighed by itself.
--
-- Of a viewer who was erased after the ticket was issued, or who is not named, no keys are stored. Where the books of a
-- ticket's day are closed, the trigger of its partition passes the event over: it is `late`.
--
-- Planning takes longer than settling, so the plan is kept. It is made when the day's partition is empty: the settings and
-- OFFSET 0 have it look up each key in the index all the same.
CREATE OR REPLACE FUNCTION settle_batch(p_events reported_event[])
RETURNS TABLE (ordinal bigint, event_id uuid, outcome text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
  c_attempts_max CONSTANT integer := 100;  -- more than there are batches at once
  v_first_day date;
  v_last_day date;
  v_transaction bigint;
  v_scarce boolean;
  v_stored bigint[];
  v_beyond bigint[];
  v_told integer;
BEGIN
  -- With these bounds a look for keys opens the partitions of the batch, not all there are.
  WITH asked AS MATERIALIZED (
    SELECT lease_id, campaign_id, advertiser_id, currency, outcome = 'recorded' AS charged,
           bool_or(outcome IN ('recorded', 'invalid_traffic')) AS rated, sum(price_micros) AS micros,
           min(issued_at_ms) AS first_ms, max(issued_at_ms) AS last_ms
    FROM unnest(p_events) GROUP BY 1, 2, 3, 4, 5
  ), locked AS MATERIALIZED (
    SELECT * FROM leases WHERE id = ANY (ARRAY (SELECT lease_id FROM asked WHERE charged)) ORDER BY id FOR NO KEY UPDATE
  )
  SELECT date '1970-01-01' + (min(first_ms) / 86400000)::integer, date '1970-01-01' + (max(last_ms) / 86400000)::integer,
         CASE WHEN bool_or(rated) THEN nextval('transactions_id_seq') END,
         bool_or(charged AND (micros <= l.granted_micros - l.captured_micros) IS NOT TRUE)
  INTO v_first_day, v_last_day, v_transaction, v_scarce
  FROM asked a LEFT JOIN locked l ON a.charged AND l.id = a.lease_id AND l.closed_at IS NULL AND l.campaign_id = a.campaign_id
   AND l.advertiser_id = a.advertiser_id AND l.currency = a.currency;

  IF v_scarce THEN
    WITH fresh AS (
      SELECT DISTINCT ON (g.issued_at_ms / 86400000, ticket_id, kind)
             ordinality, price_micros, currency, advertiser_id, campaign_id, lease_id, outcome
      FROM unnest(p_events) WITH ORDINALITY AS g
      WHERE NOT EXISTS (SELECT FROM events e WHERE e.issued_day = date '1970-01-01' + (g.issued_at_ms / 86400000)::integer
                        AND e.ticket_id = g.ticket_id AND e.kind = g.kind AND e.issued_day BETWEEN v_first_day AND v_last_day OFFSET 0)
        AND NOT EXISTS (SELECT FROM pending_events p WHERE p.issued_day = date '1970-01-01' + (g.issued_at_ms / 86400000)::integer
                        AND p.ticket_id = g.ticket_id AND p.kind = g.kind OFFSET 0)
      ORDER BY g.issued_at_ms / 86400000, ticket_id, kind, ordinality
    ), drawn AS (
      SELECT *, sum(price_micros) OVER (PARTITION BY lease_id ORDER BY ordinality) AS drawn_micros FROM fresh WHERE outcome = 'recorded'
    )
    SELECT array_agg(ordinality) INTO v_beyond
    FROM drawn d LEFT JOIN leases l ON l.id = d.lease_id AND l.closed_at IS NULL AND l.campaign_id = d.campaign_id
     AND l.advertiser_id = d.advertiser_id AND l.currency = d.currency
    WHERE (d.drawn_micros <= l.granted_micros - l.captured_micros) IS NOT TRUE;
  END IF;

  FOR attempt IN 1 .. c_attempts_max LOOP
  BEGIN
    WITH given AS MATERIALIZED (
      SELECT *, date '1970-01-01' + (issued_at_ms / 86400000)::integer AS issued_day,
             CASE WHEN ordinality = ANY (v_beyond) THEN 'over_budget' ELSE outcome END AS rating
      FROM unnest(p_events) WITH ORDINALITY
    ), seen AS MATERIALIZED (
      SELECT d.issued_day, e.ticket_id, e.kind
      FROM (SELECT issued_day, array_agg(ticket_id) AS tickets FROM given GROUP BY 1) AS d
      CROSS JOIN LATERAL (SELECT ticket_id, kind FROM events WHERE issued_day = d.issued_day AND ticket_id = ANY (d.tickets)
                          AND issued_day BETWEEN v_first_day AND v_last_day OFFSET 0) AS e
    ), stored AS (
      INSERT INTO events (
        issued_day, ticket_id, kind, event_id, outcome, billed_micros, price_micros, currency, billable, bid_model,
        decision_id, advertiser_id, campaign_id, ad_id, creative_id, revision, lease_id, budget_day, epoch, surface,
        country, platform, position, propensity, model, catalogue_version, rules_version, arm, labels, issued_at,
        expires_at, received_at, occurred_at, view_ms, invalid_reason, traffic_rules, transaction_id)
      SELECT DISTINCT ON (issued_day, ticket_id, kind)
        issued_day, ticket_id, kind, event_id, rating, CASE rating WHEN 'recorded' THEN price_micros ELSE 0 END,
        price_micros, currency, billable, bid_model, decision_id, advertiser_id, campaign_id, ad_id, creative_id,
        revision, lease_id, date '0001-01-01' + (budget_day - 1), epoch, surface, country, platform, position,
        propensity, model, catalogue_version, rules_version, arm, string_to_array(labels, ','),
        to_timestamp(issued_at_ms / 1000::float8), to_timestamp(expires_at_ms / 1000::float8),
        to_timestamp(received_at_ms / 1000::float8), to_timestamp(occurred_at_ms / 1000::float8), view_ms,
        CASE rating WHEN 'invalid_traffic' THEN invalid_reason END, traffic_rules,
        CASE WHEN rating IN ('recorded', 'invalid_traffic') THEN v_transaction END
      FROM given
      WHERE NOT EXISTS (SELECT FROM seen WHERE seen.issued_day = given.issued_day AND seen.ticket_id = given.ticket_id
                        AND seen.kind = given.kind)
        AND ((SELECT NOT EXISTS (SELECT FROM pending_events)) OR NOT EXISTS (
               SELECT FROM pending_events p WHERE p.issued_day = given.issued_day AND p.ticket_id = given.ticket_id
                AND p.kind = given.kind OFFSET 0))
      ORDER BY issued_day, ticket_id, kind, ordinality
      RETURNING issued_day, ticket_id, event_id, kind, outcome, billed_micros, price_micros, billable, currency, advertiser_id,
                campaign_id, ad_id, lease_id, issued_at, received_at
    ), news AS MATERIALIZED (
      SELECT DISTINCT ON (s.issued_day, s.ticket_id, s.kind)
             g.ordinality, s.issued_day, s.ticket_id, s.kind, s.outcome, g.viewer_cap, g.viewer_log,
             g.viewer_cap <> '' AND ((SELECT NOT EXISTS (SELECT FROM erasures)) OR NOT EXISTS (
               SELECT FROM erasures e WHERE e.tombstone = sha256(g.viewer_cap) AND (e.cut_at IS NULL OR s.issued_at < e.cut_at))) AS known
      FROM stored s JOIN given g USING (event_id)
      ORDER BY s.issued_day, s.ticket_id, s.kind, g.ordinality
    ), named AS MATERIALIZED (
      SELECT DISTINCT ON (issued_day, ticket_id) issued_day, ticket_id, viewer_cap, viewer_log FROM news n
      WHERE known AND NOT EXISTS (SELECT FROM seen WHERE seen.issued_day = n.issued_day AND seen.ticket_id = n.ticket_id)
      ORDER BY issued_day, ticket_id, kind
    ), known_to_caps AS (
      INSERT INTO viewer_caps SELECT issued_day, ticket_id, viewer_cap FROM named
    ), known_to_log AS (
      INSERT INTO viewer_log SELECT issued_day, ticket_id, viewer_log FROM named
    ), known_origins AS (
      INSERT INTO event_origins (issued_day, ticket_id, kind, crawlers, network, address, device)
      SELECT n.issued_day, n.ticket_id, n.kind, string_to_array(g.crawlers, E'\t'), g.network::cidr, g.address, g.device
      FROM given g JOIN news n USING (ordinality)
      WHERE g.crawlers IS NOT NULL AND n.known ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING
    ), counted AS (
      INSERT INTO rollup_deltas
      SELECT date_bin('1 hour', received_at, timestamptz 'epoch'), advertiser_id, campaign_id, ad_id, currency, kind, outcome,
             count(*), sum(billed_micros),
             sum(CASE WHEN outcome = 'invalid_traffic' AND kind = billable THEN price_micros ELSE 0 END)
      FROM stored GROUP BY 1, 2, 3, 4, 5, 6, 7
    ), charged AS (
      SELECT advertiser_id, campaign_id, lease_id, currency, sum(billed_micros) AS micros
      FROM stored WHERE outcome = 'recorded' GROUP BY 1, 2, 3, 4
    ), captured AS (
      UPDATE leases SET captured_micros = captured_micros + c.micros FROM charged c WHERE leases.id = c.lease_id
    ), entry AS (
      INSERT INTO transactions (id, kind, reference, at) OVERRIDING SYSTEM VALUE
      SELECT v_transaction, 'settle', 'events', max(received_at) FROM stored HAVING bool_or(outcome IN ('recorded', 'invalid_traffic'))
      RETURNING id
    ), posted AS (
      INSERT INTO postings (transaction_id, account_id, campaign_id, lease_id, micros, currency)
      SELECT entry.id, a.id, c.campaign_id, c.lease_id, -c.micros, c.currency
      FROM entry, charged c
      JOIN accounts a ON a.kind = 'held' AND a.advertiser_id = c.advertiser_id AND a.currency = c.currency
      UNION ALL
      SELECT entry.id, a.id, c.campaign_id, c.lease_id, c.micros, c.currency
      FROM entry, charged c
      JOIN accounts a ON a.kind = 'revenue' AND a.advertiser_id IS NULL AND a.currency = c.currency
    )
    SELECT coalesce(array_agg(ordinality), '{}'), array_agg(ordinality) FILTER (WHERE outcome = 'over_budget')
    INTO v_stored, v_beyond FROM news;
    EXIT;
  EXCEPTION WHEN unique_violation THEN
    IF attempt = c_attempts_max THEN RAISE; END IF;  -- else what another batch has stored is seen now
  END;
  END LOOP;

  RETURN QUERY SELECT n, NULL::uuid, 'over_budget' FROM unnest(v_beyond) AS n;

  -- A statement of its own sees what a concurrent batch has committed under our keys meanwhile.
  IF cardinality(v_stored) < cardinality(p_events) THEN
    RETURN QUERY
    SELECT g.ordinality, e.event_id, coalesce(e.outcome, 'late')
    FROM unnest(p_events) WITH ORDINALITY AS g
    LEFT JOIN LATERAL (SELECT event_id, 'duplicate' AS outcome FROM events
             WHERE issued_day = date '1970-01-01' + (g.issued_at_ms / 86400000)::integer AND ticket_id = g.ticket_id
               AND kind = g.kind AND issued_day BETWEEN v_first_day AND v_last_day
             UNION ALL
             SELECT event_id, 'accepted' FROM pending_events
             WHERE issued_day = date '1970-01-01' + (g.issued_at_ms / 86400000)::integer AND ticket_id = g.ticket_id
               AND kind = g.kind
             LIMIT 1) AS e ON true
    WHERE NOT EXISTS (SELECT FROM unnest(v_stored) AS n WHERE n = g.ordinality)
      AND (e.event_id IS NOT NULL OR date '1970-01-01' + (g.issued_at_ms / 86400000)::integer IN (SELECT day FROM closed_days));
    GET DIAGNOSTICS v_told = ROW_COUNT;
    IF cardinality(v_stored) + v_told < cardinality(p_events) THEN
      RAISE EXCEPTION 'the first event of a key went away' USING ERRCODE = 'serialization_failure';
    END IF;
  END IF;
END $$;
REVOKE ALL ON FUNCTION settle_batch FROM PUBLIC;
GRANT EXECUTE ON FUNCTION settle_batch TO adserve_recorder;
