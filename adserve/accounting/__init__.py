"""Whether the money adds up: every balance derived again from the events, the leases and the deposits; and what invoices say.

Invariant: a reconciliation compares what it derives with what stands in the books to the micro, over one snapshot
of all of them, and names every difference.
"""
