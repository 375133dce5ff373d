-- Settles one batch of events in the transaction of the call: each key is stored once, and what is new and
-- billable captures from its lease, is posted and counted. Answers one row for each event given, in any order; `event_id` is null where it is the one given.
-- Moments are milliseconds since the epoch, `p_budget_day` counts days from 0001-01-01, `p_labels` are joined by commas.
--
-- No two batches can deadlock: leases are locked first and in id order, then keys are written in key order, then the
-- maps to viewers in the same. A billable ticket has one lease, so two batches with it take turns there, and what the
-- second reads of the lease and of the first one's events is committed.
--
-- Of a viewer who was erased after the ticket was issued, or who is not named, no keys are stored.
--
-- What waits in `pending_events` is a duplicate too; whoever settles it takes it from there first, in the same transaction.
--
-- Planning takes longer than settling, so the plan is kept. It is made when the day's partition is empty: the settings and
-- OFFSET 0 have it look up each key in the index all the same.
CREATE OR REPLACE FUNCTION settle(
  p_ticket_id uuid[], p_kind text[], p_event_id uuid[], p_outcome text[],
  p_price_micros bigint[], p_currency text[], p_billable text[], p_bid_model text[], p_decision_id uuid[],
  p_advertiser_id bigint[], p_campaign_id bigint[], p_ad_id bigint[], p_creative_id bigint[], p_revision integer[],
  p_lease_id bigint[], p_budget_day integer[], p_epoch bigint[], p_surface text[], p_country text[], p_platform text[],
  p_position integer[], p_propensity double precision[], p_model text[], p_catalogue_version bigint[],
  p_rules_version integer[], p_arm text[], p_labels text[], p_issued_at_ms bigint[], p_expires_at_ms bigint[],
  p_received_at_ms bigint[], p_occurred_at_ms bigint[], p_view_ms integer[],
  p_viewer_cap bytea[], p_viewer_log bytea[]
) RETURNS TABLE (ordinal bigint, event_id uuid, outcome text, billed_micros bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
  v_first_day date;
  v_last_day date;
  v_leases leases[];
  v_ordinals bigint[];
  v_outcomes text[];
  v_billed bigint[];
  v_days date[];
  v_tickets uuid[];
  v_caps bytea[];
  v_logs bytea[];
  v_known boolean[];
BEGIN
  -- With these bounds a look for keys opens the partitions of the batch, not all there are.
  SELECT date '1970-01-01' + (min(m) / 86400000)::integer, date '1970-01-01' + (max(m) / 86400000)::integer
  INTO v_first_day, v_last_day FROM unnest(p_issued_at_ms) AS given (m);

  SELECT array_agg(locked) INTO v_leases FROM (
    SELECT * FROM leases
    WHERE id = ANY (ARRAY(SELECT l FROM unnest(p_lease_id, p_outcome) AS given (l, o) WHERE o = 'recorded'))
    ORDER BY id FOR NO KEY UPDATE
  ) AS locked;

  WITH given AS (
    SELECT *, date '1970-01-01' + (issued_at_ms / 86400000)::integer AS issued_day
    FROM unnest(
      p_ticket_id, p_kind, p_event_id, p_outcome, p_price_micros, p_currency, p_billable, p_bid_model,
      p_decision_id, p_advertiser_id, p_campaign_id, p_ad_id, p_creative_id, p_revision, p_lease_id, p_budget_day,
      p_epoch, p_surface, p_country, p_platform, p_position, p_propensity, p_model, p_catalogue_version,
      p_rules_version, p_arm, p_labels, p_issued_at_ms, p_expires_at_ms, p_received_at_ms, p_occurred_at_ms, p_view_ms,
      p_viewer_cap, p_viewer_log
    ) WITH ORDINALITY AS g (
      ticket_id, kind, event_id, outcome, price_micros, currency, billable, bid_model,
      decision_id, advertiser_id, campaign_id, ad_id, creative_id, revision, lease_id, budget_day,
      epoch, surface, country, platform, position, propensity, model, catalogue_version,
      rules_version, arm, labels, issued_at_ms, expires_at_ms, received_at_ms, occurred_at_ms, view_ms,
      viewer_cap, viewer_log, ordinal)
  ), fresh AS (
    SELECT DISTINCT ON (issued_day, ticket_id, kind) *
    FROM given
    WHERE NOT EXISTS (SELECT FROM events e WHERE e.issued_day = given.issued_day AND e.ticket_id = given.ticket_id
                      AND e.kind = given.kind AND e.issued_day BETWEEN v_first_day AND v_last_day OFFSET 0)
      AND NOT EXISTS (SELECT FROM pending_events p WHERE p.issued_day = given.issued_day AND p.ticket_id = given.ticket_id
                      AND p.kind = given.kind OFFSET 0)
    ORDER BY issued_day, ticket_id, kind, ordinal
  ), drawn AS (
    SELECT *, sum(price_micros) OVER (PARTITION BY lease_id, outcome ORDER BY ordinal) AS drawn_micros FROM fresh
  ), rated AS (
    SELECT d.*, CASE WHEN d.outcome <> 'recorded' THEN d.outcome
                     WHEN d.drawn_micros <= l.granted_micros - l.captured_micros THEN 'recorded'
                     ELSE 'over_budget' END AS rating
    FROM drawn d LEFT JOIN unnest(v_leases) AS l ON l.id = d.lease_id AND l.closed_at IS NULL AND l.campaign_id = d.campaign_id
     AND l.advertiser_id = d.advertiser_id AND l.currency = d.currency
  ), stored AS (
    INSERT INTO events (
      issued_day, ticket_id, kind, event_id, outcome, billed_micros, price_micros, currency, billable, bid_model,
      decision_id, advertiser_id, campaign_id, ad_id, creative_id, revision, lease_id, budget_day, epoch, surface,
      country, platform, position, propensity, model, catalogue_version, rules_version, arm, labels, issued_at,
      expires_at, received_at, occurred_at, view_ms)
    SELECT
      issued_day, ticket_id, kind, event_id, rating, CASE rating WHEN 'recorded' THEN price_micros ELSE 0 END,
      price_micros, currency, billable, bid_model, decision_id, advertiser_id, campaign_id, ad_id, creative_id,
      revision, lease_id, date '0001-01-01' + (budget_day - 1), epoch, surface, country, platform, position,
      propensity, model, catalogue_version, rules_version, arm, string_to_array(labels, ','),
      timestamptz 'epoch' + issued_at_ms * interval '1 ms', timestamptz 'epoch' + expires_at_ms * interval '1 ms',
      timestamptz 'epoch' + received_at_ms * interval '1 ms', timestamptz 'epoch' + occurred_at_ms * interval '1 ms',
      view_ms
    FROM rated ORDER BY issued_day, ticket_id, kind
    ON CONFLICT DO NOTHING
    RETURNING issued_day, ticket_id, kind, outcome, billed_micros, currency, advertiser_id, campaign_id, ad_id,
              lease_id, received_at
  ), counted AS (
    INSERT INTO rollup_deltas
    SELECT date_trunc('hour', received_at, 'UTC'), advertiser_id, campaign_id, ad_id, currency, kind, outcome,
           count(*), sum(billed_micros)
    FROM stored GROUP BY 1, 2, 3, 4, 5, 6, 7
  ), charged AS (
    SELECT advertiser_id, campaign_id, lease_id, currency, sum(billed_micros) AS micros
    FROM stored WHERE outcome = 'recorded' GROUP BY 1, 2, 3, 4
  ), captured AS (
    UPDATE leases SET captured_micros = captured_micros + c.micros FROM charged c WHERE leases.id = c.lease_id
  ), entry AS (
    INSERT INTO transactions (kind, reference, at)
    SELECT 'settle', 'events', max(received_at) FROM stored HAVING EXISTS (SELECT FROM charged)
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
  SELECT array_agg(f.ordinal), array_agg(s.outcome), array_agg(s.billed_micros),
         array_agg(s.issued_day), array_agg(s.ticket_id), array_agg(f.viewer_cap), array_agg(f.viewer_log),
         array_agg(f.viewer_cap <> '' AND ((SELECT NOT EXISTS (SELECT FROM erasures)) OR NOT EXISTS (
           SELECT FROM erasures e WHERE e.tombstone = sha256(f.viewer_cap)
             AND (e.cut_at IS NULL OR timestamptz 'epoch' + f.issued_at_ms * interval '1 ms' < e.cut_at))))
  INTO v_ordinals, v_outcomes, v_billed, v_days, v_tickets, v_caps, v_logs, v_known
  FROM stored s JOIN fresh f USING (issued_day, ticket_id, kind);

  INSERT INTO viewer_caps
  SELECT day, ticket, viewer FROM unnest(v_days, v_tickets, v_caps, v_known) AS m (day, ticket, viewer, known)
  WHERE known ORDER BY day, ticket ON CONFLICT DO NOTHING;
  INSERT INTO viewer_log
  SELECT day, ticket, viewer FROM unnest(v_days, v_tickets, v_logs, v_known) AS m (day, ticket, viewer, known)
  WHERE known ORDER BY day, ticket ON CONFLICT DO NOTHING;

  RETURN QUERY
  SELECT n.ordinal, NULL::uuid, n.outcome, n.billed_micros
  FROM unnest(v_ordinals, v_outcomes, v_billed) AS n (ordinal, outcome, billed_micros);

  -- A statement of its own sees what a concurrent batch has committed under our keys meanwhile.
  IF cardinality(v_ordinals) IS DISTINCT FROM cardinality(p_ticket_id) THEN
    RETURN QUERY
    SELECT g.ordinal, e.event_id, 'duplicate', 0::bigint
    FROM unnest(p_issued_at_ms, p_ticket_id, p_kind) WITH ORDINALITY AS g (issued_at_ms, ticket_id, kind, ordinal),
    LATERAL (SELECT event_id FROM events
             WHERE issued_day = date '1970-01-01' + (g.issued_at_ms / 86400000)::integer AND ticket_id = g.ticket_id
               AND kind = g.kind AND issued_day BETWEEN v_first_day AND v_last_day
             UNION ALL
             SELECT event_id FROM pending_events
             WHERE issued_day = date '1970-01-01' + (g.issued_at_ms / 86400000)::integer AND ticket_id = g.ticket_id
               AND kind = g.kind
             LIMIT 1) AS e
    WHERE NOT EXISTS (SELECT FROM unnest(v_ordinals) AS n (ordinal) WHERE n.ordinal = g.ordinal);
  END IF;
END $$;
REVOKE ALL ON FUNCTION settle FROM PUBLIC;
GRANT EXECUTE ON FUNCTION settle TO adserve_recorder;
