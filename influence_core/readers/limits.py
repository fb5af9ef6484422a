"""What an imported file may be at most: beyond this it is refused with the place, before memory or disk suffers."""

from __future__ import annotations

MAX_BYTES = 8 << 30  # unpacked
MAX_RATIO = 200  # unpacked bytes for each packed one
RATIO_FROM = 64 << 20  # unpacked bytes from which the ratio counts: a small file of equal rows is no attack
MAX_COLUMNS = 10_000
MAX_CELL = 1 << 20  # characters
MAX_LINE = 64 << 20  # characters
MAX_NAME = 500  # characters of a column name
ROWS_AT_ONCE = 4096
MOST_ROWS_AT_ONCE = 32_768  # of a table without long texts
CELLS_AT_ONCE = 1 << 20
CHARS_AT_ONCE = 16 << 20
SAMPLE_ROWS = 20_000  # rows that a column's description is made of
MAX_CLASSES = 1000
MAX_MEMBERS = 300_000  # files of a folder or archive of images
MAX_IMAGE_BYTES = 64 << 30  # of all images together, unpacked
IMAGES_AT_ONCE = 256
