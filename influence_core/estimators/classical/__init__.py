"""Closed forms of linear models and last layers."""
