"""Values that every room shares: ids, money, time, slots, tickets and events.

Nothing here does I/O, reads a clock or draws a random number: `now` (milliseconds since the epoch, UTC) and
chance (an integer seed) are arguments everywhere.
"""
