"""The analysts' and advertisers' questions, as far as they are more than a look into a table.

Invariants: what was not counted is told as a gap, never as a zero. A campaign's owner is told nothing of others' bids and budgets.
"""
