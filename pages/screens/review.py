"""Review: one row at a time with the evidence beside it, one key per decision."""

from __future__ import annotations

from pages.components import review, session

view = session.view()
review.desk(view.study, view.queue)
