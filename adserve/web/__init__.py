"""What every edge of the service shares: operations, keys, bodies, problems, paging, OpenAPI.

Invariants: an operation stands in one table, from which its route, its checks and its description are made; every
refusal is a problem document (RFC 9457) that names what was wrong; nothing internal and no viewer leaves in one.
"""
