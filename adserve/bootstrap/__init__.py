"""The only place where concrete things meet: builds a service, runs it, and stops it in order.

Invariants: nothing is served before the serving lock is held and the first tasks have run once; ads with caps wait until the
counters are filled; a shutdown answers what was taken before it closes anything.
"""
