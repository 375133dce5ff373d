-- Viewers who asked to be forgotten, and who asked for it.

-- A row is an erasure. While it goes on it names the viewer's pseudonym for caps; then only a hash of that is left, the
-- tombstone: what was decided for this viewer before `cut_at` (null: at all) is stored without keys. It is deleted when no ticket
-- of before can be opened any more.
CREATE TABLE erasures (
  tombstone  bytea PRIMARY KEY CHECK (length(tombstone) = 32),
  id         uuid NOT NULL UNIQUE,
  viewer     bytea,
  asked_at   timestamptz NOT NULL,
  cut_at     timestamptz,
  CHECK ((viewer IS NULL) = (cut_at IS NOT NULL))
);

CREATE FUNCTION erasures_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('adserve_erasures', '');
  RETURN NULL;
END $$;
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON erasures FOR EACH STATEMENT EXECUTE FUNCTION erasures_changed();

-- A row is one call about a viewer, who is not named: which key made it, and when.
CREATE TABLE viewer_calls (
  id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  call      text NOT NULL CHECK (call IN ('erase', 'export')),
  erasure   uuid,
  key_id    bigint NOT NULL,
  key_name  text NOT NULL,
  at        timestamptz NOT NULL,
  CHECK ((call = 'erase') = (erasure IS NOT NULL))
);

-- The viewer of a recorded decision stands beside the record too, so that it is found; null in what was recorded before.
ALTER TABLE recorded_decisions ADD COLUMN viewer bytea;
CREATE INDEX ON recorded_decisions (viewer);

-- Whether the event was stripped of its viewer's keys.
ALTER TABLE quarantined_events ADD COLUMN nameless boolean NOT NULL DEFAULT false;

GRANT SELECT, INSERT, UPDATE, DELETE ON erasures TO adserve_recorder;
GRANT INSERT ON viewer_calls TO adserve_recorder;
GRANT SELECT ON viewer_calls TO adserve_operator;
GRANT DELETE ON viewer_caps, viewer_log TO adserve_recorder;
GRANT SELECT (issued_day, ticket_id) ON viewer_log TO adserve_recorder;
GRANT UPDATE ON pending_events, quarantined_events TO adserve_recorder;
GRANT SELECT, DELETE ON recorded_decisions TO adserve_recorder;
GRANT SELECT (seals_from) ON ticket_keys TO adserve_recorder;
