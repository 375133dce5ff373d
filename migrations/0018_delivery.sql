-- What the report of delivery reads beyond events and roll-ups, in the name of an advertiser.

-- An advertiser counts the viewers of its own events: a row of the map is its own when an event of the ticket is.
ALTER TABLE viewer_log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own    ON viewer_log FOR SELECT TO adserve_tenant USING (EXISTS (
  SELECT FROM events e WHERE e.issued_day = viewer_log.issued_day AND e.ticket_id = viewer_log.ticket_id));
CREATE POLICY all_   ON viewer_log TO adserve_owner USING (true);
CREATE POLICY read   ON viewer_log FOR SELECT TO adserve_analyst, adserve_recorder USING (true);
CREATE POLICY forget ON viewer_log FOR DELETE TO adserve_recorder USING (true);
GRANT SELECT ON viewer_log TO adserve_tenant;

-- Since when single events are there.
GRANT SELECT (day) ON closed_days TO adserve_tenant;
