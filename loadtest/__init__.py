"""The load generator and the benchmarks. Loopback only, bounded in requests and time."""
