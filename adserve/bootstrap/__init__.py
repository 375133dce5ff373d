"""The only place where concrete things meet: builds a service, runs it, and stops it in order.

Invariants: nothing is served before the serving lock is held, the counters are filled and every task has run once;
a shutdown answers what was taken before it closes anything.
"""
