"""Which ads: from a request and a snapshot to placements with sealed prices.

Invariants: `plan` and `award` are pure (their inputs, the past and the grant replay a decision); a price is never
above the bid and never below the floor; nobody bids against himself; organic order is never touched.
"""
