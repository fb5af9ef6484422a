"""Influence functions: gradients through the inverse of the curvature."""
