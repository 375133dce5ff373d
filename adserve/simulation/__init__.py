"""Runs without people: a sample upstream feed and a cast of advertisers, all of them invented.

Everything is drawn and chosen from names and seeds, so that two runs show the same feeds, pictures and campaigns.
"""
