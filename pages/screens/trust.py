"""Trust: how well each method tracks retraining on this study, and what it takes to find out."""

from __future__ import annotations

from influence_core import service
from pages.components import errors, session, trust

study = session.view().study
with errors.shown():
    page = service.trust(study)
    trust.result(page)
    trust.measure(study, page)
