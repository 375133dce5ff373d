"""How likely a viewer is to click an ad: features, the trained model and the plain rate that stands in for it.

Invariants: training and serving compute the same features with the same code; an artifact is data, checked
before use and never executed; without a usable artifact the prior answers, and the reason is told.
"""
