"""What happened to the ads that were placed: opens tickets, confirms, records and settles the events on them.

Invariants: an event is answered after it is durable, never before (I1). A ticket bills at most once, for the
kind of event sealed in it (I2). No input makes this room raise anything but a MeteringError.
"""
