"""The load generator and the benchmarks: the real service beside what nothing of its kind could exceed.

Invariants: loopback only; bounded in requests and time; every process that is started ends with the one that
started it; what is compared runs in turns, in the same run, on the same cores.
"""
