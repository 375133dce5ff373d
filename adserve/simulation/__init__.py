"""Runs without people: real logs replayed, an invented crowd, a sample upstream feed and a cast of advertisers.

What is invented is drawn and chosen from names and seeds. Whoever runs here knows the service by its HTTP API alone, keeps
count of what it was told, and trusts nothing else when the figures are compared.
"""
