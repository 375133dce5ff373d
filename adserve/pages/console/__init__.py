"""The console: where each country stands, what its plan saw, and the switch that stops all ads; and the creatives that wait for a review.

Invariants: the key that opens it is exchanged for a cookie that no script can read and is kept nowhere; nothing is answered
without a session whose key is valid now and has the scope for it; nothing changes for a request that does not come from the console's own page.
"""
