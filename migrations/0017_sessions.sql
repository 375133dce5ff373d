-- A row is one browser's way into the console: the SHA-256 of its cookie, never the cookie. It is worth nothing once its key is revoked.
CREATE TABLE sessions (
  hash        bytea PRIMARY KEY CHECK (length(hash) = 32),
  key_id      bigint NOT NULL REFERENCES api_keys,
  created_at  timestamptz NOT NULL,
  expires_at  timestamptz NOT NULL CHECK (expires_at > created_at)
);
CREATE INDEX ON sessions (key_id, created_at);
CREATE INDEX ON sessions (expires_at);

GRANT SELECT, INSERT, DELETE ON sessions TO adserve_operator;
