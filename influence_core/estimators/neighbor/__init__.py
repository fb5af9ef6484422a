"""Closed forms of nearest-neighbour models on some embedding."""
