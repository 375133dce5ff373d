-- What steps of ramps are judged by: who was in which arm, what became of them, and how the processes did.
--
-- A step begins anew whenever it is entered, so it is named by its ramp and the moment `entered_at`. Viewers are named by
-- their pseudonym for caps; every row of a viewer may be deleted.

-- A row is a viewer of one arm of a step, and sums of what was told of them since it was entered. What may be left out of an outcome has
-- a count of those that told it (`_told`): a session, a day, as the feed service sees it. Events are those of the exposed.
CREATE TABLE arm_viewers (
  ramp_id          bigint NOT NULL,
  entered_at       timestamptz NOT NULL,
  viewer           bytea NOT NULL,
  arm              text NOT NULL CHECK (arm IN ('exposed', 'control')),
  assigned_at      timestamptz NOT NULL,
  statuses_viewed  bigint NOT NULL DEFAULT 0,
  statuses_told    bigint NOT NULL DEFAULT 0,
  session_seconds  bigint NOT NULL DEFAULT 0,
  sessions_told    bigint NOT NULL DEFAULT 0,
  returned         bigint NOT NULL DEFAULT 0,
  returns_told     bigint NOT NULL DEFAULT 0,
  posts_made       bigint NOT NULL DEFAULT 0,
  posts_told       bigint NOT NULL DEFAULT 0,
  impressions      bigint NOT NULL DEFAULT 0,
  clicks           bigint NOT NULL DEFAULT 0,
  hides            bigint NOT NULL DEFAULT 0,
  reports          bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (ramp_id, entered_at, viewer)
) WITH (fillfactor = 80);  -- most rows are written again, in place
CREATE INDEX ON arm_viewers USING brin (assigned_at);

-- What of a viewer is compared, as a numerator and a denominator. Whoever was told nothing of says nothing.
CREATE FUNCTION arm_metrics(v arm_viewers) RETURNS TABLE (metric text, x numeric, y numeric) LANGUAGE sql IMMUTABLE AS $$
  SELECT m.metric, m.x::numeric, m.y::numeric
  FROM (VALUES
    ('assigned', 1::bigint, 1::bigint),
    ('statuses_viewed', v.statuses_viewed, v.statuses_told),
    ('session_seconds', v.session_seconds, v.sessions_told),
    ('returns_next_day', v.returned, v.returns_told),
    ('posts_made', v.posts_made, v.posts_told),
    ('hide_rate', v.hides, v.impressions),
    ('report_rate', v.reports, v.impressions),
    ('click_rate', v.clicks, v.impressions),
    ('ad_load', v.impressions, v.sessions_told)
  ) AS m (metric, x, y)
  WHERE m.y > 0
$$;

-- A row is a part of the moments of one arm of a step over its viewers; the parts add up to what the viewers' rows would: whoever
-- asks adds a few rows, however many viewers there are. The triggers write parts that nobody else writes, a task adds them up.
CREATE TABLE arm_sums (
  ramp_id     bigint NOT NULL,
  entered_at  timestamptz NOT NULL,
  arm         text NOT NULL,
  metric      text NOT NULL,
  viewers     bigint NOT NULL,
  x           numeric NOT NULL,
  y           numeric NOT NULL,
  xx          numeric NOT NULL,
  xy          numeric NOT NULL,
  yy          numeric NOT NULL
);
CREATE INDEX ON arm_sums (ramp_id, entered_at);

CREATE FUNCTION add_to_arm_sums() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = adserve, pg_temp AS $$
BEGIN
  IF TG_OP <> 'DELETE' THEN
    INSERT INTO arm_sums
    SELECT v.ramp_id, v.entered_at, v.arm, m.metric, count(*), sum(m.x), sum(m.y), sum(m.x * m.x), sum(m.x * m.y), sum(m.y * m.y)
    FROM newer v CROSS JOIN LATERAL arm_metrics(v) m GROUP BY 1, 2, 3, 4;
  END IF;
  IF TG_OP <> 'INSERT' THEN
    INSERT INTO arm_sums
    SELECT v.ramp_id, v.entered_at, v.arm, m.metric, -count(*), -sum(m.x), -sum(m.y), -sum(m.x * m.x), -sum(m.x * m.y), -sum(m.y * m.y)
    FROM older v CROSS JOIN LATERAL arm_metrics(v) m GROUP BY 1, 2, 3, 4;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER inserted AFTER INSERT ON arm_viewers REFERENCING NEW TABLE AS newer
  FOR EACH STATEMENT EXECUTE FUNCTION add_to_arm_sums();
CREATE TRIGGER updated AFTER UPDATE ON arm_viewers REFERENCING OLD TABLE AS older NEW TABLE AS newer
  FOR EACH STATEMENT EXECUTE FUNCTION add_to_arm_sums();
CREATE TRIGGER deleted AFTER DELETE ON arm_viewers REFERENCING OLD TABLE AS older
  FOR EACH STATEMENT EXECUTE FUNCTION add_to_arm_sums();

-- A row is an outcome that has been counted: a keyed hash of the id that the feed service gave it, and of nothing else.
CREATE TABLE outcome_ids (
  id  bytea PRIMARY KEY CHECK (length(id) = 16),
  at  timestamptz NOT NULL
);
CREATE INDEX ON outcome_ids USING brin (at);

-- A row says up to which moment of receipt the events of a step's exposed viewers have been counted, and how many were of ads that are
-- paid by the click: of those clicks are predicted.
CREATE TABLE arm_event_reads (
  ramp_id           bigint NOT NULL,
  entered_at        timestamptz NOT NULL,
  read_to           timestamptz NOT NULL,
  paid_impressions  bigint NOT NULL DEFAULT 0,
  paid_clicks       bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (ramp_id, entered_at)
);

-- A row is what one process did for exposed viewers of a ramp in one minute. The latencies are histograms, whose bounds the code knows;
-- `off_pace` adds up how far, relative to its plan, each of `paced` campaigns was off whenever it was looked at.
CREATE TABLE ramp_minutes (
  ramp_id      bigint NOT NULL,
  minute       timestamptz NOT NULL,
  replica      uuid NOT NULL,
  looked       bigint NOT NULL,
  unfilled     bigint NOT NULL,
  decisions    bigint NOT NULL,
  errors       bigint NOT NULL,
  placed       bigint NOT NULL,
  predicted    double precision NOT NULL,
  paced        bigint NOT NULL,
  off_pace     double precision NOT NULL,
  decision_ms  bigint[] NOT NULL,
  feed_ms      bigint[] NOT NULL,
  PRIMARY KEY (ramp_id, minute, replica)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON arm_viewers, arm_sums, outcome_ids, arm_event_reads, ramp_minutes TO adserve_recorder;
GRANT SELECT ON arm_sums, arm_event_reads, ramp_minutes TO adserve_operator, adserve_analyst;
