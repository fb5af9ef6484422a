"""A user's tables, texts and images as a study."""

from influence_core.readers.costs import ImportCost, cost_in_words, images_cost, import_cost
from influence_core.readers.facts import column_facts
from influence_core.readers.image_study import check_images, import_images
from influence_core.readers.images import ImageSource, holds_images, open_images
from influence_core.readers.importer import import_table
from influence_core.readers.leaks import Leak, found_leaks, leak_notes
from influence_core.readers.roles import Roles, check_roles, corrected_roles, guessed_roles, used_columns
from influence_core.readers.sources import ColumnInfo, Source, open_source
from influence_core.readers.splits import Assignment, split_names

__all__ = [
    "Assignment", "ColumnInfo", "ImageSource", "ImportCost", "Leak", "Roles", "Source", "check_images", "check_roles",
    "column_facts", "corrected_roles", "cost_in_words", "found_leaks", "guessed_roles", "holds_images", "images_cost",
    "import_cost", "import_images", "import_table", "leak_notes", "open_images", "open_source", "split_names",
    "used_columns",
]  # fmt: skip
