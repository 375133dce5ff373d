"""How a process that serves looks for garbage."""

import gc

YOUNG_OBJECTS = 5_000
YOUNG_ROUNDS = 10
MIDDLE_ROUNDS = 1_000


def collect_rarely() -> None:
    """To be called once everything is built, by a process that does nothing but serve.

    What is there by then stays, and of what requests leave behind (counters, tickets) almost nothing is ever part of a
    cycle: looking through all of it again and again took a quarter of the time and stopped every request meanwhile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_ROUNDS, MIDDLE_ROUNDS)
