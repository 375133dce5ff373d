-- Settles one batch of events in the transaction of the call: each key is stored once, and what is new and
-- billable captures from its lease, is posted and counted. Answers one row for each event given, in order.
--
-- Leases are locked first, in id order: a ticket has one lease, so two batches with the same billable ticket
-- take turns there, and the keys, written in key order, cannot deadlock.
CREATE OR REPLACE FUNCTION settle(
  p_issued_day date[], p_ticket_id uuid[], p_kind text[], p_event_id uuid[], p_outcome text[],
  p_price_micros bigint[], p_currency text[], p_billable text[], p_bid_model text[], p_decision_id uuid[],
  p_advertiser_id bigint[], p_campaign_id bigint[], p_ad_id bigint[], p_creative_id bigint[], p_revision integer[],
  p_lease_id bigint[], p_budget_day date[], p_epoch bigint[], p_surface text[], p_country text[], p_platform text[],
  p_position integer[], p_propensity double precision[], p_model text[], p_catalogue_version bigint[],
  p_rules_version integer[], p_arm text[], p_labels text[], p_issued_at timestamptz[], p_expires_at timestamptz[],
  p_received_at timestamptz[], p_occurred_at timestamptz[], p_view_ms integer[],
  p_viewer_cap bytea[], p_viewer_log bytea[]
) RETURNS TABLE (ordinal bigint, event_id uuid, outcome text, billed_micros bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
#variable_conflict use_column
DECLARE
  v_transaction bigint;
  v_new bigint[];
  v_events uuid[];
  v_outcomes text[];
  v_billed bigint[];
BEGIN
  PERFORM FROM leases
  WHERE id IN (SELECT l FROM unnest(p_lease_id, p_outcome) AS given (l, o) WHERE o = 'recorded')
  ORDER BY id FOR NO KEY UPDATE;

  WITH given AS (
    SELECT * FROM unnest(
      p_issued_day, p_ticket_id, p_kind, p_event_id, p_outcome, p_price_micros, p_currency, p_billable, p_bid_model,
      p_decision_id, p_advertiser_id, p_campaign_id, p_ad_id, p_creative_id, p_revision, p_lease_id, p_budget_day,
      p_epoch, p_surface, p_country, p_platform, p_position, p_propensity, p_model, p_catalogue_version,
      p_rules_version, p_arm, p_labels, p_issued_at, p_expires_at, p_received_at, p_occurred_at, p_view_ms,
      p_viewer_cap, p_viewer_log
    ) WITH ORDINALITY AS g (
      issued_day, ticket_id, kind, event_id, outcome, price_micros, currency, billable, bid_model,
      decision_id, advertiser_id, campaign_id, ad_id, creative_id, revision, lease_id, budget_day,
      epoch, surface, country, platform, position, propensity, model, catalogue_version,
      rules_version, arm, labels, issued_at, expires_at, received_at, occurred_at, view_ms,
      viewer_cap, viewer_log, ordinal)
  ), fresh AS (
    SELECT DISTINCT ON (issued_day, ticket_id, kind) *
    FROM given
    WHERE NOT EXISTS (SELECT FROM events e WHERE e.issued_day = given.issued_day
                      AND e.ticket_id = given.ticket_id AND e.kind = given.kind)
    ORDER BY issued_day, ticket_id, kind, ordinal
  ), drawn AS (
    SELECT *, sum(price_micros) OVER (PARTITION BY lease_id, outcome ORDER BY ordinal) AS drawn_micros FROM fresh
  ), rated AS (
    SELECT d.*, CASE WHEN d.outcome <> 'recorded' THEN d.outcome
                     WHEN l.closed_at IS NULL AND d.drawn_micros <= l.granted_micros - l.captured_micros THEN 'recorded'
                     ELSE 'over_budget' END AS rating
    FROM drawn d LEFT JOIN leases l ON l.id = d.lease_id
  ), stored AS (
    INSERT INTO events (
      issued_day, ticket_id, kind, event_id, outcome, billed_micros, price_micros, currency, billable, bid_model,
      decision_id, advertiser_id, campaign_id, ad_id, creative_id, revision, lease_id, budget_day, epoch, surface,
      country, platform, position, propensity, model, catalogue_version, rules_version, arm, labels, issued_at,
      expires_at, received_at, occurred_at, view_ms)
    SELECT
      issued_day, ticket_id, kind, event_id, rating, CASE rating WHEN 'recorded' THEN price_micros ELSE 0 END,
      price_micros, currency, billable, bid_model, decision_id, advertiser_id, campaign_id, ad_id, creative_id,
      revision, lease_id, budget_day, epoch, surface, country, platform, position, propensity, model,
      catalogue_version, rules_version, arm, string_to_array(nullif(labels, ''), ','), issued_at, expires_at, received_at,
      occurred_at, view_ms
    FROM rated ORDER BY issued_day, ticket_id, kind
    ON CONFLICT DO NOTHING
    RETURNING *
  ), mapped_caps AS (
    INSERT INTO viewer_caps SELECT issued_day, ticket_id, viewer_cap
    FROM fresh JOIN stored USING (issued_day, ticket_id, kind)
    ORDER BY issued_day, ticket_id ON CONFLICT DO NOTHING
  ), mapped_log AS (
    INSERT INTO viewer_log SELECT issued_day, ticket_id, viewer_log
    FROM fresh JOIN stored USING (issued_day, ticket_id, kind)
    ORDER BY issued_day, ticket_id ON CONFLICT DO NOTHING
  ), captured AS (
    UPDATE leases SET captured_micros = captured_micros + c.micros
    FROM (SELECT lease_id, sum(billed_micros) AS micros FROM stored WHERE outcome = 'recorded' GROUP BY lease_id) AS c
    WHERE leases.id = c.lease_id
  ), counted AS (
    INSERT INTO rollup_deltas
    SELECT date_trunc('hour', received_at, 'UTC'), advertiser_id, campaign_id, ad_id, currency, kind, outcome,
           count(*), sum(billed_micros)
    FROM stored GROUP BY 1, 2, 3, 4, 5, 6, 7
  ), charged AS (
    SELECT advertiser_id, campaign_id, lease_id, currency, sum(billed_micros) AS micros
    FROM stored WHERE outcome = 'recorded' GROUP BY 1, 2, 3, 4
  ), entry AS (
    INSERT INTO transactions (kind, reference, at)
    SELECT 'settle', 'events', max(received_at) FROM stored HAVING EXISTS (SELECT FROM charged)
    RETURNING id
  ), posted AS (
    INSERT INTO postings (transaction_id, account_id, campaign_id, lease_id, micros, currency)
    SELECT entry.id, a.id, c.campaign_id, c.lease_id, CASE a.kind WHEN 'held' THEN -c.micros ELSE c.micros END, c.currency
    FROM entry, charged c JOIN accounts a ON a.currency = c.currency
     AND (a.kind = 'held' AND a.advertiser_id = c.advertiser_id OR a.kind = 'revenue')
  )
  SELECT array_agg(f.ordinal), array_agg(s.event_id), array_agg(s.outcome), array_agg(s.billed_micros)
  INTO v_new, v_events, v_outcomes, v_billed
  FROM stored s JOIN fresh f USING (issued_day, ticket_id, kind);

  -- A statement of its own sees what a concurrent batch has committed under our keys meanwhile.
  RETURN QUERY
  SELECT n.ordinal, n.event_id, n.outcome, n.billed_micros
  FROM unnest(v_new, v_events, v_outcomes, v_billed) AS n (ordinal, event_id, outcome, billed_micros)
  UNION ALL
  SELECT g.ordinal, e.event_id, 'duplicate', 0::bigint
  FROM unnest(p_issued_day, p_ticket_id, p_kind) WITH ORDINALITY AS g (issued_day, ticket_id, kind, ordinal)
  JOIN events e USING (issued_day, ticket_id, kind)
  WHERE v_new IS NULL OR g.ordinal <> ALL (v_new)
  ORDER BY 1;
END $$;
REVOKE ALL ON FUNCTION settle FROM PUBLIC;
GRANT EXECUTE ON FUNCTION settle TO adserve_recorder;
