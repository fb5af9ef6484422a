"""Uploaded images before they are imported: what can be learned from them, and what a label says of some of them."""

from __future__ import annotations

from influence_core.errors import BadInput
from influence_core.readers import ImageSource, check_images, cost_in_words, images_cost
from influence_core.service.data import data_uri
from influence_core.service.import_views import ImagesCheck, ImagesPreview

THUMBNAILS = 24
FOLDER = "folder"
_CHOICES = 50  # labels that can be chosen


def images_preview(token: str, source: ImageSource) -> ImagesPreview:
    """Return what some images are.

    Args:
        token: Their upload.
        source: The images.
    """
    own = () if FOLDER in source.columns or not _lie_in_folders(source) else (FOLDER,)
    labels = (*own, *source.columns)[:_CHOICES]
    label = source.label or ""
    if label and label not in labels:
        labels = (label, *labels)
    name = source.path.name
    return ImagesPreview(
        token, name, name.split(".")[0] or name, source.n_rows, _sizes(source), labels, label, source.notes
    )


def _lie_in_folders(source: ImageSource) -> bool:
    values = source.values(FOLDER)
    return values.null_count < len(values)


def _sizes(source: ImageSource) -> str:
    if len(source.sizes) == 1:
        width, height = next(iter(source.sizes))
        return f"{width:,} × {height:,} pixels"
    widths, heights = zip(*source.sizes, strict=True)
    return f"{min(widths):,} × {min(heights):,} to {max(widths):,} × {max(heights):,} pixels"


def images_check(source: ImageSource, label: str, read_seconds: float) -> ImagesCheck:
    """Say whether a study can be made of some images with a label.

    Args:
        source: The images.
        label: Of the preview's labels; empty for what it seems to be.
        read_seconds: What looking at them took.
    """
    label = label or source.label or ""
    task, classes, problem, cost = "", (), None, ""
    try:
        check_images(source, label or None)
        task = source.task_of(label)
        classes = tuple(source.classes_of(label).items()) if task == "classification" else ()
        cost = cost_in_words(images_cost(source, label, read_seconds))
    except BadInput as refused:
        why = refused.why.replace(str(source.path), source.path.name)
        problem = (refused.what, why, refused.fix)
    known = label if label in (FOLDER, *source.columns) else None
    shown = tuple((data_uri(content), said) for content, said in source.head(THUMBNAILS, known))
    roles = None if problem else {"label": label}
    return ImagesCheck(label, task, classes, shown, roles, problem, cost)
