-- What an advertiser made is shown once a person has looked at it and approved it.

-- Whether the creative's newest revision may be shown: why (null: nobody said), since when, and whose key decided (null: it waits,
-- or staff made it). What there is at this moment is being shown, so it is approved, by no verdict.
ALTER TABLE creatives
  ADD COLUMN review text NOT NULL DEFAULT 'approved' CHECK (review IN ('waiting', 'approved', 'rejected')),
  ADD COLUMN review_reason text CHECK (length(review_reason) BETWEEN 1 AND 500),
  ADD COLUMN review_at timestamptz NOT NULL DEFAULT now(),
  ADD COLUMN review_key bigint REFERENCES api_keys,
  ADD CHECK (review <> 'rejected' OR review_reason IS NOT NULL);
ALTER TABLE creatives ALTER COLUMN review SET DEFAULT 'waiting';
CREATE INDEX ON creatives (review, review_at, id) WHERE status <> 'archived';

-- A row is a verdict on one revision of a creative: by the key that judged, or (null) by staff's making it. No row is ever changed.
CREATE TABLE creative_verdicts (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  creative_id    bigint NOT NULL,
  advertiser_id  bigint NOT NULL,
  revision       integer NOT NULL,
  verdict        text NOT NULL CHECK (verdict IN ('approved', 'rejected')),
  reason         text,
  key_id         bigint REFERENCES api_keys,
  at             timestamptz NOT NULL,
  FOREIGN KEY (creative_id, advertiser_id) REFERENCES creatives (id, advertiser_id)
);
CREATE INDEX ON creative_verdicts (creative_id, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON creative_verdicts FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Whoever is not known to be staff is a tenant.
CREATE FUNCTION by_staff() RETURNS boolean LANGUAGE sql STABLE
RETURN current_user = 'adserve_operator' OR pg_has_role('adserve_owner', 'USAGE');

-- Decides by the role that asks. Other content is another revision, whatever the statement says; a revision never returns.
CREATE FUNCTION await_review() RETURNS trigger LANGUAGE plpgsql SET search_path = adserve, pg_temp AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    NEW.revision := greatest(NEW.revision, OLD.revision + (
      (NEW.kind, NEW.media, NEW.headline, NEW.body, NEW.call_to_action, NEW.landing_url) IS DISTINCT FROM
      (OLD.kind, OLD.media, OLD.headline, OLD.body, OLD.call_to_action, OLD.landing_url))::integer);
    IF NEW.revision = OLD.revision THEN
      IF NOT by_staff() THEN
        NEW.review := OLD.review;
        NEW.review_reason := OLD.review_reason;
        NEW.review_at := OLD.review_at;
        NEW.review_key := OLD.review_key;
      ELSIF (NEW.review, NEW.review_reason) IS DISTINCT FROM (OLD.review, OLD.review_reason) THEN
        NEW.review_at := now();
      END IF;
      RETURN NEW;
    END IF;
  END IF;
  NEW.review := CASE WHEN by_staff() THEN 'approved' ELSE 'waiting' END;
  NEW.review_reason := CASE WHEN by_staff() THEN 'made by staff' END;
  NEW.review_at := now();
  NEW.review_key := NULL;
  RETURN NEW;
END $$;
CREATE TRIGGER reviewed BEFORE INSERT OR UPDATE ON creatives FOR EACH ROW EXECUTE FUNCTION await_review();

CREATE FUNCTION remember_verdict() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = adserve, pg_temp AS $$
BEGIN
  IF NEW.review <> 'waiting' AND (TG_OP = 'INSERT' OR
     (NEW.revision, NEW.review, NEW.review_reason) IS DISTINCT FROM (OLD.revision, OLD.review, OLD.review_reason)) THEN
    INSERT INTO creative_verdicts (creative_id, advertiser_id, revision, verdict, reason, key_id, at)
    VALUES (NEW.id, NEW.advertiser_id, NEW.revision, NEW.review, NEW.review_reason, NEW.review_key, NEW.review_at);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER remember_verdict AFTER INSERT OR UPDATE ON creatives FOR EACH ROW EXECUTE FUNCTION remember_verdict();

-- An advertiser's name is shown beside each of its ads, so another name is another revision of all of them.
CREATE FUNCTION review_again() RETURNS trigger LANGUAGE plpgsql SET search_path = adserve, pg_temp AS $$
BEGIN
  IF NOT by_staff() THEN
    UPDATE creatives SET revision = revision + 1, version = version + 1, updated_at = now() WHERE advertiser_id = NEW.id;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER renamed AFTER UPDATE OF name ON advertisers FOR EACH ROW WHEN (OLD.name <> NEW.name) EXECUTE FUNCTION review_again();

ALTER TABLE creative_verdicts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own  ON creative_verdicts FOR SELECT TO adserve_tenant USING (advertiser_id = tenant());
CREATE POLICY all_ ON creative_verdicts TO adserve_owner USING (true);
CREATE POLICY read ON creative_verdicts FOR SELECT TO adserve_operator, adserve_analyst USING (true);
-- Written by the trigger alone, as its owner.
GRANT SELECT ON creative_verdicts TO adserve_tenant, adserve_operator, adserve_analyst;
