"""Adapters between the core's values and PostgreSQL, one file a subject; the SQL lies beside them in sql/.

Statements are named and loaded once. A class here takes a pool whose role may do what it needs and no more, and
translates the driver's errors into those of the room that asked: nobody above this room sees asyncpg.
"""
