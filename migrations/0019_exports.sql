-- A row is a question about the log that somebody wants the whole answer to. The answer is read when it is fetched.
CREATE TABLE exports (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  advertiser_id  bigint REFERENCES advertisers,
  asked          jsonb NOT NULL,
  made_at        timestamptz NOT NULL
);
CREATE INDEX ON exports (made_at);

ALTER TABLE exports ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own  ON exports TO adserve_tenant USING (advertiser_id = tenant());
CREATE POLICY all_ ON exports TO adserve_operator, adserve_owner USING (true);
GRANT SELECT, INSERT ON exports TO adserve_tenant;
GRANT SELECT, INSERT, DELETE ON exports TO adserve_operator;
