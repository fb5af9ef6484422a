"""Imports for the tests of the screens: one table in memory, jobs that end when they are told to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from influence_core.errors import BadInput
from influence_core.service import views

TOKEN = "0123456789abcdef" * 2
FUNCTIONS = (
    "save_upload reading preview check_import check_images start_import pending_imports pending_import cancel_import "
    "retry_import discard_import drop_upload"
).split()


def column(
    name: str, kind: str, role: str, plain: str = "feature", examples: tuple[str, ...] = ()
) -> views.ImportColumn:
    return views.ImportColumn(name, kind, 7, 2, examples or ("1", "2"), role, plain)


def table(n_more: int = 0) -> views.ImportPreview:
    """A file with a key, a note, an age and a label, and as many further features as wanted."""
    columns = (
        column("key", "whole numbers", "id", "shown"),
        column("<b>note</b>", "texts", "shown", "shown", ("a <i>long</i> text",)),
        column("age", "whole numbers", "feature"),
        column("won", "yes or no", "label"),
        *(column(f"x{n}", "numbers", "feature") for n in range(n_more)),
    )
    row = ("1", "a <i>long</i> text", "34", "True", *("0.5" for _ in range(n_more)))
    return views.ImportPreview(TOKEN, "mine.csv", "mine", 1200, columns, (row,) * 8, ("Read as Windows-1252.",))


PIXEL = "data:image/png;base64,iVBORw0KGgo="


def pictures(label: str = "folder") -> views.ImagesPreview:
    """Images in class folders with a table beside them, whose column has a hostile name."""
    return views.ImagesPreview(TOKEN, "pets.zip", "pets", 2000, "28 × 28 pixels", ("folder", "<b>age</b>"), label,
                               ("3 files left out: <i>a</i>.",))  # fmt: skip


def packed(reference: str = "", reviews: int = 0, cache: int = 0) -> views.StudyPreview:
    """A packed study with a hostile title."""
    return views.StudyPreview(TOKEN, "old.zip", "<b>Old</b> study", "From <i>there</i>.", "classification, table",
                              {"train": 1200, "test": 300}, "" if reference else "linear model", reference, reviews,
                              cache, ("Made elsewhere.",))  # fmt: skip


@dataclass
class FakeImports:
    """The functions of ``influence_core.service`` about imports.

    Attributes:
        shown: What was uploaded.
        classes: Class and number of its images, of uploaded images.
        unreadable: What is wrong with the file, if it cannot be read.
        items: The pending imports.
        started: What was started: token, roles and title.
        dropped: Tokens whose files were deleted.
        leaks: Features that may give the label away.
        progress: How far the file is read, while it still is.
    """

    shown: views.ImportPreview | views.ImagesPreview | views.StudyPreview = field(default_factory=table)
    classes: tuple[tuple[str, int], ...] = (("cat", 1500), ("<b>dog</b>", 500))
    unreadable: BadInput | None = None
    items: dict[str, views.PendingImport] = field(default_factory=dict)
    started: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    uploads: list[tuple[str, bytes]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    leaks: tuple[str, ...] = ()
    progress: views.Reading | None = None

    def put(
        self, state: str, name: str = "mine", file: str = "mine.csv", message: str = "", token: str = TOKEN
    ) -> None:
        """Have an import in this state."""
        active = state in ("queued", "running")
        job = views.JobView(9, "import", f"Import {name}", state, "training won" if active else "", 0.4 * active,
                            12.0, None, message, active)  # fmt: skip
        roles = {"label": "age", "task": "regression", "id": None, "text": "<b>note</b>", "split": None,
                 "features": [], "ignored": ["won"]}  # fmt: skip
        self.items[name] = views.PendingImport(name, f"Title of {name}", token, roles, file, job, False)

    def save_upload(self, name: str, content: BinaryIO) -> str:
        self.uploads.append((name, content.read()))
        return TOKEN

    def check_images(self, token: str, label: str) -> views.ImagesCheck:
        if not label:
            problem = ("The images have no label", "They lie in one folder.", "Name a column.")
            return views.ImagesCheck("", "", (), ((PIXEL, ""),), None, problem)
        folder = label == "folder"
        shown = tuple((PIXEL, name) for name, _ in self.classes) + (("https://elsewhere/x.png", "cat"),)
        return views.ImagesCheck(label, "classification" if folder else "regression", self.classes if folder else (),
                                 shown, {"label": label}, None, "About 20 s")  # fmt: skip

    def preview(self, token: str) -> views.ImportPreview | views.ImagesPreview | views.StudyPreview:
        if self.unreadable is not None:
            raise self.unreadable
        if token != TOKEN:
            raise BadInput("The uploaded file is gone", "A day has passed.", "Choose the file again.")
        return self.shown

    def reading(self, token: str) -> views.Reading | None:
        return self.progress

    def check_import(
        self, token: str, chosen: Mapping[str, str], task: str = "", reading: str = ""
    ) -> views.ImportCheck:
        label = [name for name, role in chosen.items() if role == "label"]
        if not label:
            return views.ImportCheck("", None, ("No column is the label", "None has the role.", "Give it."), None)
        if chosen.get("key") == "feature":
            problem = ("A feature cannot be used", "'key' numbers the rows.", "Ignore it.")
            return views.ImportCheck(task or "classification", None, problem, "key")
        roles = {"label": label[0], "task": task or "classification"}
        roles["features"] = [name for name, role in chosen.items() if role == "feature"]
        if reading:
            roles["reading"] = reading
        sensitive = [name for name, role in chosen.items() if role.startswith("sensitive")]
        if sensitive:
            roles["sensitive"] = sensitive
        leaks = tuple((name, "alone it tells <all>") for name in self.leaks if chosen.get(name) == "feature")
        return views.ImportCheck(roles["task"], roles, None, None, leaks, "About 7 s, 2 MB on disk, 400 MB of memory")

    def start_import(self, token: str, roles: Mapping[str, Any], title: str) -> views.PendingImport:
        self.started.append((token, dict(roles), title))
        self.put("running")
        return self.items["mine"]

    def pending_imports(self) -> list[views.PendingImport]:
        return list(self.items.values())

    def pending_import(self, name: str) -> views.PendingImport | None:
        return self.items.get(name)

    def cancel_import(self, name: str) -> None:
        item = self.items[name]
        self.items[name] = replace(item, job=replace(item.job, state="cancelled", is_active=False))

    def retry_import(self, name: str) -> views.PendingImport:
        self.put("running", name)
        return self.items[name]

    def discard_import(self, name: str) -> None:
        self.dropped.append(self.items.pop(name).token)

    def drop_upload(self, token: str) -> None:
        self.dropped.append(token)
