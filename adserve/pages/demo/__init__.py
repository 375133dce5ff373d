"""The demo: a Status player in the browser, and what happens behind the feed beside it.

Served by `adserve demo` alone. The browser has no key: its own small API under /demo/api holds them and goes the
same ways as any other caller, through the wrapper for feeds and the operator's calls for the rollout.
"""
