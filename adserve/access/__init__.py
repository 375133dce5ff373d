"""Who may do what: keys and their scopes.

Invariants: a key's secret is shown once, when it is issued, and kept nowhere, only its SHA-256; a key that is bound
to an advertiser speaks for that advertiser alone.
"""
