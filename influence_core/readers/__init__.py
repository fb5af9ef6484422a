"""A user's table or text file as a study."""

from influence_core.readers.importer import import_table
from influence_core.readers.roles import Roles, check_roles, guessed_roles, used_columns
from influence_core.readers.sources import ColumnInfo, Source, open_source
from influence_core.readers.splits import Assignment, split_names

__all__ = [
    "Assignment", "ColumnInfo", "Roles", "Source", "check_roles", "guessed_roles", "import_table", "open_source",
    "split_names", "used_columns",
]  # fmt: skip
