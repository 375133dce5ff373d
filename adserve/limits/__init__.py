"""How much may still be shown: frequency caps and budgets.

Invariants: in every sliding window a viewer's counted impressions never exceed a cap, whatever the interleaving
(the counters are the one arbiter, entries are keyed by ticket id); what is drawn from a lease never exceeds it.
"""
