"""The analysts' questions, as far as they are more than a look into a table.

Invariants: what was not counted is told as a gap, never as a zero.
"""
