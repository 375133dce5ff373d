"""What advertisers set up, as an immutable snapshot that is swapped whole.

Invariant: a decision reads one snapshot from its first step to its last. A snapshot that has not been confirmed
for `SNAPSHOT_MAX_AGE_MS` serves no ads.
"""
