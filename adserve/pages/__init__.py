"""HTML for people. Pages are whole files with strict content security policies: no inline script or style, no other origin.

Invariants: no key of the service reaches a browser; whatever a feed or an advertiser wrote is shown as text only.
"""
