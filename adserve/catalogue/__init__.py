"""What advertisers set up, as an immutable snapshot that is swapped whole.

Invariants: a decision reads one snapshot from its first step to its last. No change that was committed before a snapshot's
version is missed by it, in whatever order transactions end. A snapshot that has not been confirmed
for `SNAPSHOT_MAX_AGE_MS` serves no ads.
"""
