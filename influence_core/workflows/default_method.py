"""The method that explains a prediction unless another one is chosen."""

from __future__ import annotations

from influence_core import registry
from influence_core.errors import Unavailable
from influence_core.task import Task

# The default is the first of these that can run. Plain gradient products are not among them: rows with long gradients,
# most of them mislabelled or odd, then top the list of every prediction.
_PREFERRED = {
    "gas": "It compares the directions of gradients, not their lengths, so a few loud rows do not top every list.",
    "grad_cos": "It compares the directions of gradients, not their lengths, so loud rows do not top every list.",
    "embedding_similarity": "No gradients can be had here, so rows are compared by how the model sees them.",
    "knn_shapley": "No gradients can be had here, so the nearest rows share the vote.",
}


def default_method(task: Task) -> tuple[str, str]:
    """Return the id of the method that Explain starts with, and why it does.

    Raises:
        Unavailable: None of them can run on this task.
    """
    missing = registry.available(task)
    for name, reason in _PREFERRED.items():
        if not missing[name]:
            return name, reason
    raise Unavailable(
        "Nothing can be explained here", "No method can run on this study.", "See the Methods page for what each needs."
    )
