"""Candidate mislabels: several detectors side by side, one list from those that were shown to add to each other."""

from influence_core.workflows.suspects.detectors import Detector, detectors
from influence_core.workflows.suspects.ranking import Suspects, suspects

__all__ = ["Detector", "Suspects", "detectors", "suspects"]
