"""Trains the click model that `adserve.prediction` serves, and measures it.

Invariants: an example knows nothing of its own future (exposures are counted from earlier rows alone); what is
measured was never trained on; the features are those of `adserve.prediction.features`.
"""
