"""The PostgreSQL server itself: starting one, refusing an unsafe one, roles, migrations, partitions, the serving lock.

Invariants:
- A server that could forget a commit is refused, and so is one whose clock is not ours (I1).
- With counters in memory at most one process serves, and a newcomer outwaits one that may not know it has lost (I4).
- Every pool speaks as one narrow role from the first byte of its connections, and comes back to it (I9).
"""
