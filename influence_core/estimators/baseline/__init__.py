"""Baselines that every detector and every ranking must be compared with."""
