"""Who sees ads at all.

Invariant: sticky and monotone. A viewer's place in a surface's rollout depends on the group and the raw id alone,
so raising a percent only adds viewers and lowering it only removes them; the holdout is drawn with a salt of its own.
"""
