-- Invalid traffic: the rules in their versions, the verdict beside each event, and what is kept of where it came from.

-- A row is one version of the rules: the operator's `revision` of them, the list of crawlers and the list of networks.
CREATE TABLE traffic_rules (
  version   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  revision  integer NOT NULL,
  rules     jsonb NOT NULL,
  crawlers  text NOT NULL,
  networks  text NOT NULL,
  made_at   timestamptz NOT NULL,
  UNIQUE (revision, crawlers, networks)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON traffic_rules FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- `traffic_rules` is the version that judged; null where none did, as for late events.
ALTER TABLE events
  ADD COLUMN invalid_reason text,
  ADD COLUMN traffic_rules integer,
  ADD CHECK ((outcome = 'invalid_traffic') = (invalid_reason IS NOT NULL)) NOT VALID;

-- Deletable, like the maps to viewers. A row is what is kept of where an event came from: no address, no user agent.
CREATE TABLE event_origins (
  issued_day  date NOT NULL,
  ticket_id   uuid NOT NULL,
  kind        text NOT NULL,
  crawlers    text[] NOT NULL,
  network     cidr,
  address     bytea,
  device      bytea,
  PRIMARY KEY (issued_day, ticket_id, kind)
) PARTITION BY RANGE (issued_day);

-- A row is a charged event that a later version of the rules finds invalid. The event stays as it is; its charge is credited once.
CREATE TABLE traffic_findings (
  issued_day     date NOT NULL,
  ticket_id      uuid NOT NULL,
  kind           text NOT NULL,
  rules_version  integer NOT NULL REFERENCES traffic_rules,
  reason         text NOT NULL,
  at             timestamptz NOT NULL,
  PRIMARY KEY (issued_day, ticket_id, kind, rules_version)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON traffic_findings FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT ON traffic_rules TO adserve_recorder, adserve_operator, adserve_analyst;
GRANT INSERT ON traffic_rules TO adserve_recorder, adserve_operator;
GRANT SELECT, DELETE ON event_origins TO adserve_recorder;
GRANT SELECT ON traffic_findings TO adserve_recorder, adserve_operator, adserve_analyst;
