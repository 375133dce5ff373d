-- Why ads were placed or not: decisions that can be made again, and the funnel of every campaign.

-- A row is one ad with all that a decision reads of it, under the digest of these facts. `used_on` is the last day that a
-- recorded decision named it.
CREATE TABLE ad_versions (
  digest   bytea PRIMARY KEY CHECK (length(digest) = 16),
  facts    bytea NOT NULL,
  used_on  date NOT NULL
);
CREATE INDEX ON ad_versions (used_on);

-- A row is a decision with its inputs and what came of it. No viewer is in it but a pseudonym.
CREATE TABLE recorded_decisions (
  decided_on   date NOT NULL,
  decision_id  uuid NOT NULL,
  record       bytea NOT NULL,
  PRIMARY KEY (decided_on, decision_id)
) PARTITION BY RANGE (decided_on);

-- Drops the partitions of a parent for days before `first_kept`; answers how many.
CREATE FUNCTION drop_partitions(parent text, first_kept date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  partition text;
  dropped integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('adserve.partitions', 0));
  FOR partition IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = format('adserve.%I', parent)::regclass AND c.relname < parent || to_char(first_kept, '_YYYYMMDD')
  LOOP
    EXECUTE format('DROP TABLE adserve.%I', partition);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END $$;
REVOKE EXECUTE ON FUNCTION drop_partitions FROM PUBLIC;

-- A row is a time without a gap for which everything that one process decided is in the funnel. `ended` says that it
-- stopped in order, so that nothing is missing behind it.
CREATE TABLE funnel_spans (
  replica  uuid NOT NULL,
  from_at  timestamptz NOT NULL,
  to_at    timestamptz NOT NULL CHECK (to_at >= from_at),
  ended    boolean NOT NULL DEFAULT false,
  PRIMARY KEY (replica, from_at)
) WITH (fillfactor = 50);
CREATE INDEX ON funnel_spans (to_at);

-- A row is the set of campaigns that were live on a process's surface until the next generation.
CREATE TABLE funnel_generations (
  replica         uuid NOT NULL,
  surface         text NOT NULL,
  generation      integer NOT NULL,
  campaign_ids    bigint[] NOT NULL,
  advertiser_ids  bigint[] NOT NULL,
  saved_at        timestamptz NOT NULL,
  PRIMARY KEY (replica, surface, generation)
);

-- A row is what one flush counted for one hour, surface and catalogue: how many requests looked for ads, and column by
-- column the campaigns that any of them reached. It waits to be merged into the hours.
CREATE TABLE funnel_flushes (
  replica       uuid NOT NULL,
  to_at         timestamptz NOT NULL,
  part          integer NOT NULL,
  hour          timestamptz NOT NULL,
  surface       text NOT NULL,
  generation    integer NOT NULL,
  looked        bigint NOT NULL,
  campaign_ids  bigint[] NOT NULL,
  targeted      bigint[] NOT NULL,
  ranked        bigint[] NOT NULL,
  in_budget     bigint[] NOT NULL,
  under_cap     bigint[] NOT NULL,
  placed        bigint[] NOT NULL,
  PRIMARY KEY (replica, to_at, part),
  FOREIGN KEY (replica, surface, generation) REFERENCES funnel_generations
);

CREATE TABLE funnel_hours (
  hour           timestamptz NOT NULL,
  campaign_id    bigint NOT NULL,
  advertiser_id  bigint NOT NULL,
  eligible       bigint NOT NULL,
  targeted       bigint NOT NULL,
  ranked         bigint NOT NULL,
  in_budget      bigint NOT NULL,
  under_cap      bigint NOT NULL,
  placed         bigint NOT NULL,
  PRIMARY KEY (hour, campaign_id)
) WITH (fillfactor = 60);
CREATE INDEX ON funnel_hours (campaign_id, hour);

ALTER TABLE funnel_hours ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own  ON funnel_hours FOR SELECT TO adserve_tenant USING (advertiser_id = tenant());
CREATE POLICY all_ ON funnel_hours TO adserve_owner, adserve_recorder USING (true);
CREATE POLICY read ON funnel_hours FOR SELECT TO adserve_analyst, adserve_operator USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON ad_versions TO adserve_recorder;
GRANT SELECT, INSERT ON recorded_decisions TO adserve_recorder;
GRANT SELECT ON ad_versions, recorded_decisions TO adserve_analyst, adserve_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON funnel_spans, funnel_generations, funnel_flushes, funnel_hours TO adserve_recorder;
GRANT SELECT ON funnel_spans, funnel_generations, funnel_flushes, funnel_hours TO adserve_analyst, adserve_operator;
GRANT SELECT ON funnel_spans, funnel_hours TO adserve_tenant;
GRANT SELECT (to_at) ON funnel_flushes TO adserve_tenant;
