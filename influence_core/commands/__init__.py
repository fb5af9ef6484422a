"""The commands of the command line, a module per subject: each adds its own to ``base.app`` when it is imported."""

from influence_core.commands import (
    diagnose,
    imports,
    init,
    methods,
    project,
    propose,
    retrain,
    review,
    studies,
    suspects,
    work,
)
from influence_core.commands.base import app

__all__ = [
    "app",
    "diagnose",
    "imports",
    "init",
    "methods",
    "project",
    "propose",
    "retrain",
    "review",
    "studies",
    "suspects",
    "work",
]
