-- Plans of staged ramps: where each stands, the places that it holds, every move and every look.

-- A row is a plan and where it stands. What was planned never changes, and what has ended stays so. `step` counts from 0, -1 is before the
-- first; `good_bp` is the percent that a roll-back returns to. Without countries the plan moves the surface's own percent.
CREATE TABLE ramps (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  surface          text NOT NULL,
  countries        text[] NOT NULL,
  plan             jsonb NOT NULL,
  made_by          text NOT NULL,
  made_at          timestamptz NOT NULL,
  status           text NOT NULL CHECK (status IN ('scheduled', 'running', 'held', 'awaiting_approval', 'paused',
                     'completed', 'rolled_back', 'aborted')),
  step             integer NOT NULL CHECK (step >= -1),
  step_entered_at  timestamptz NOT NULL,
  good_bp          integer NOT NULL CHECK (good_bp BETWEEN 0 AND 10000),
  reason           text NOT NULL
);
CREATE INDEX ON ramps (id) WHERE status NOT IN ('completed', 'rolled_back', 'aborted');

-- A row is a place that a plan holds until it ends; the country is empty for the surface's own percent. Its key is what keeps it
-- to one active plan a place; the trigger alone writes it.
CREATE TABLE ramp_places (
  surface  text NOT NULL,
  country  text NOT NULL,
  ramp_id  bigint NOT NULL REFERENCES ramps,
  PRIMARY KEY (surface, country)
);

CREATE FUNCTION hold_places() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = adserve, pg_temp AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO ramp_places (surface, country, ramp_id)
    SELECT NEW.surface, unnest(CASE WHEN NEW.countries = '{}' THEN ARRAY[''] ELSE NEW.countries END), NEW.id;
  ELSIF OLD.status IN ('completed', 'rolled_back', 'aborted') THEN
    RAISE EXCEPTION 'plan % has ended', OLD.id USING ERRCODE = 'integrity_constraint_violation';
  ELSIF NEW.status IN ('completed', 'rolled_back', 'aborted') THEN
    DELETE FROM ramp_places WHERE ramp_id = NEW.id;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER hold AFTER INSERT OR UPDATE ON ramps FOR EACH ROW EXECUTE FUNCTION hold_places();
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON ramps FOR EACH STATEMENT EXECUTE FUNCTION catalogue_changed();

-- A row is a move of a plan: by whom (null: by itself), why, where its places stood from then on, and what was seen by then.
CREATE TABLE ramp_history (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  ramp_id     bigint NOT NULL REFERENCES ramps,
  at          timestamptz NOT NULL,
  act         text NOT NULL CHECK (act IN ('plan', 'look', 'pause', 'resume', 'advance', 'approve', 'roll-back', 'abort')),
  by          text,
  status      text NOT NULL,
  step        integer NOT NULL,
  percent_bp  integer NOT NULL,
  reason      text NOT NULL,
  seen        jsonb,
  CHECK ((act = 'look') = (by IS NULL))
);
CREATE INDEX ON ramp_history (ramp_id, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ramp_history FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Deletable by age. A row is what a plan saw of a step at one moment.
CREATE TABLE ramp_looks (
  ramp_id  bigint NOT NULL REFERENCES ramps,
  step     integer NOT NULL,
  at       timestamptz NOT NULL,
  look     jsonb NOT NULL,
  PRIMARY KEY (ramp_id, step, at)
);
CREATE INDEX ON ramp_looks (at);

GRANT SELECT, INSERT ON ramps, ramp_history TO adserve_operator;
GRANT UPDATE (status, step, step_entered_at, good_bp, reason) ON ramps TO adserve_operator;
GRANT SELECT, INSERT, DELETE ON ramp_looks TO adserve_operator;
GRANT SELECT ON ramp_places TO adserve_operator, adserve_catalogue;
GRANT SELECT ON ramps TO adserve_catalogue, adserve_recorder, adserve_analyst;
