"""Who may do what: keys and their scopes, sessions of the console.

Invariants: a key's secret is shown once, when it is issued, and kept nowhere, only its SHA-256; a key that is bound
to an advertiser speaks for that advertiser alone; a session holds no more than its key does, and ends with it.
"""
