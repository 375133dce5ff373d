-- The books of a day: what stands for its events when they are gone, how it is computed again, and how a day is closed.
-- Hashes are SHA-256 over rows as text in which no setting of a session has a part. Those of format 1 are in
-- docs/reconciliation.md.

-- What stands, or would stand, for the events of a day, from its table; no rows where that is gone. Rows are hashed by spans of
-- four seconds of their tickets' ids first, so that no text of a whole day is ever in memory.
CREATE OR REPLACE FUNCTION closing_entries_of(p_day date) RETURNS TABLE (
  advertiser_id bigint, campaign_id bigint, currency text, events bigint, billed_micros bigint, hash bytea
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
DECLARE
  v_table regclass := to_regclass('adserve.' || to_char(p_day, '"events_"YYYYMMDD'));
BEGIN
  IF v_table IS NULL THEN RETURN; END IF;
  RETURN QUERY EXECUTE format($query$
    SELECT advertiser_id, campaign_id, currency, sum(events)::bigint, sum(billed_micros)::bigint,
           sha256(string_agg(hash, ''::bytea ORDER BY span COLLATE "C"))
    FROM (
      SELECT advertiser_id, campaign_id, currency, left(ticket_id::text, 10) AS span,
             count(*) AS events, sum(billed_micros) AS billed_micros,
             sha256(convert_to(string_agg(ROW(
               ticket_id, kind, event_id, outcome, billed_micros, price_micros, currency, billable, bid_model, decision_id,
               advertiser_id, campaign_id, ad_id, creative_id, revision, lease_id, budget_day - date '0001-01-01',
               surface, country, platform, position, model, catalogue_version, rules_version, arm,
               (extract(epoch FROM issued_at) * 1000)::bigint, (extract(epoch FROM expires_at) * 1000)::bigint,
               (extract(epoch FROM received_at) * 1000)::bigint, transaction_id, invalid_reason
             )::text, E'\n' ORDER BY ticket_id, kind COLLATE "C"), 'UTF8')) AS hash
      FROM %s GROUP BY 1, 2, 3, 4
    ) AS spans GROUP BY 1, 2, 3$query$, v_table);
END $$;
REVOKE ALL ON FUNCTION closing_entries_of FROM PUBLIC;
GRANT EXECUTE ON FUNCTION closing_entries_of TO adserve_analyst;

-- The hash of a closed day's entries and figures, and of the day that was closed before it.
CREATE OR REPLACE FUNCTION closing_hash(p_day date) RETURNS bytea
LANGUAGE sql STABLE SET search_path = adserve, pg_temp AS $$
  SELECT sha256(
    coalesce((SELECT hash FROM closed_days WHERE day < p_day ORDER BY day DESC LIMIT 1), ''::bytea)
    || convert_to((p_day - date '0001-01-01')::text, 'UTF8')
    || sha256(coalesce((
         SELECT convert_to(string_agg(ROW(advertiser_id, campaign_id, currency, events, billed_micros, encode(hash, 'hex'))::text,
                                      E'\n' ORDER BY advertiser_id, campaign_id, currency COLLATE "C"), 'UTF8')
         FROM closing_entries WHERE day = p_day), ''::bytea))
    || sha256(coalesce((
         SELECT string_agg(hash, ''::bytea ORDER BY lease_id) FROM (
           SELECT lease_id, sha256(convert_to(string_agg(ROW(
                    (extract(epoch FROM hour) * 1000)::bigint, advertiser_id, campaign_id, ad_id, currency, kind, outcome, events,
                    billed_micros, invalid_micros)::text, E'\n'
                    ORDER BY hour, campaign_id, ad_id, kind COLLATE "C", outcome COLLATE "C", currency COLLATE "C", advertiser_id), 'UTF8')) AS hash
           FROM closing_figures WHERE day = p_day GROUP BY lease_id) AS leases), ''::bytea)))
$$;
REVOKE ALL ON FUNCTION closing_hash FROM PUBLIC;
GRANT EXECUTE ON FUNCTION closing_hash TO adserve_analyst;

-- Closes the books of a day, the oldest one that is open. Answers null when it is done, else what it has to wait for.
--
-- The trigger's lock waits for whoever stores events of the day, and holds off all others until the commit: they then find the
-- trigger. So what is summed here is all that there will ever be.
CREATE OR REPLACE FUNCTION close_day(p_day date, p_at timestamptz) RETURNS text
LANGUAGE plpgsql SET search_path = adserve, pg_temp AS $$
DECLARE
  v_table text := to_char(p_day, '"events_"YYYYMMDD');
  v_events bigint;
  v_last_transaction bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('adserve.closing', 0));
  IF EXISTS (SELECT FROM closed_days WHERE day >= p_day) THEN RETURN 'it is closed, or a later day is'; END IF;
  IF EXISTS (SELECT FROM pending_events WHERE issued_day <= p_day) THEN RETURN 'events of it wait for the counters'; END IF;
  IF EXISTS (SELECT FROM spools WHERE settled_until < p_day + 2) THEN RETURN 'events of it may lie in a spool'; END IF;
  IF EXISTS (
    SELECT FROM (
      SELECT DISTINCT e.advertiser_id, e.currency, date_trunc('month', e.received_at AT TIME ZONE a.time_zone)::date AS month
      FROM events e JOIN advertisers a ON a.id = e.advertiser_id
      WHERE e.issued_day = p_day AND e.kind = e.billable AND e.outcome IN ('recorded', 'invalid_traffic')
    ) AS charged
    WHERE NOT EXISTS (SELECT FROM invoices i WHERE i.advertiser_id = charged.advertiser_id AND i.currency = charged.currency
                      AND i.month = charged.month AND i.status IN ('issued', 'paid'))
  ) THEN RETURN 'an invoice of it is not issued'; END IF;
  EXECUTE format('CREATE TRIGGER closed BEFORE INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_closed()', v_table);
  EXECUTE format('CREATE TRIGGER closed_whole BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_closed()', v_table);

  INSERT INTO closing_entries SELECT p_day, * FROM closing_entries_of(p_day);
  INSERT INTO closing_figures (day, hour, advertiser_id, campaign_id, ad_id, lease_id, currency, kind, outcome, events, billed_micros,
                               invalid_micros)
  SELECT p_day, date_trunc('hour', received_at, 'UTC'), advertiser_id, campaign_id, ad_id, lease_id, currency, kind, outcome,
         count(*), sum(billed_micros), sum(CASE WHEN outcome = 'invalid_traffic' AND kind = billable THEN price_micros ELSE 0 END)
  FROM events WHERE issued_day = p_day GROUP BY 2, 3, 4, 5, 6, 7, 8, 9;
  SELECT count(*), greatest(max(transaction_id), (SELECT max(last_transaction) FROM closed_days), 0)
  INTO v_events, v_last_transaction FROM events WHERE issued_day = p_day;
  INSERT INTO closed_days (day, format, events, last_transaction, hash, closed_at)
  VALUES (p_day, 1, v_events, v_last_transaction, closing_hash(p_day), p_at);
  RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION close_day FROM PUBLIC;

-- Drops the events of a closed day, when they are no partition any more and still what their closing entries say: after this
-- nothing else can prove them.
CREATE OR REPLACE FUNCTION drop_closed_day(p_day date) RETURNS void
LANGUAGE plpgsql SET search_path = adserve, pg_temp AS $$
DECLARE
  v_table text := to_char(p_day, '"events_"YYYYMMDD');
BEGIN
  IF NOT EXISTS (SELECT FROM closed_days WHERE day = p_day AND hash = closing_hash(p_day)) OR EXISTS (
    (SELECT * FROM closing_entries_of(p_day) EXCEPT
     SELECT advertiser_id, campaign_id, currency, events, billed_micros, hash FROM closing_entries WHERE day = p_day)
    UNION ALL
    (SELECT advertiser_id, campaign_id, currency, events, billed_micros, hash FROM closing_entries WHERE day = p_day
     EXCEPT SELECT * FROM closing_entries_of(p_day))
  ) THEN
    RAISE EXCEPTION 'the closing entries of % do not stand for its events', p_day USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = v_table::regclass) THEN
    RAISE EXCEPTION '% is still a partition', v_table USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  EXECUTE format('DROP TABLE %I', v_table);
END $$;
REVOKE ALL ON FUNCTION drop_closed_day FROM PUBLIC;
