-- How the traffic of slot requests runs, and what the processes expect of each other's leases.

-- A row counts the requests from one country in one quarter of an hour; '*' stands for all of them.
CREATE TABLE slot_traffic (
  country   text NOT NULL,
  quarter   bigint NOT NULL,  -- since the epoch
  requests  bigint NOT NULL,
  PRIMARY KEY (quarter, country)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON slot_traffic TO adserve_recorder;
GRANT SELECT ON slot_traffic TO adserve_analyst;

-- A row is what one process expects not to be charged of its leases on a campaign's day: room in the pace, not in the budget.
CREATE TABLE lease_forecasts (
  campaign_id     bigint NOT NULL,
  budget_day      date NOT NULL,
  replica         uuid NOT NULL,
  unspent_micros  bigint NOT NULL,
  at              timestamptz NOT NULL,
  PRIMARY KEY (campaign_id, budget_day, replica)
);
CREATE INDEX ON lease_forecasts (at);
GRANT SELECT, DELETE ON lease_forecasts TO adserve_recorder;
GRANT SELECT ON lease_forecasts TO adserve_analyst;

-- No ticket that draws on a lease outlives this moment: a lost process's lease closes then.
ALTER TABLE leases ADD COLUMN tickets_until timestamptz;

-- The newest deposit tells whether campaigns without balance are worth another question.
CREATE INDEX ON transactions (id) WHERE kind = 'deposit';

-- What `take_leases` found for one campaign.
CREATE TYPE lease_rooms AS (
  campaign_id bigint, advertiser_id bigint, currency text, budget_day date, budget_daily_micros bigint,
  budget_total_micros bigint, account_id bigint, micros bigint, expected_micros bigint, paced boolean
);
