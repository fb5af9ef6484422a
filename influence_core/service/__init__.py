"""Everything the screens may ask. They import this package and nothing deeper."""

from influence_core.errors import BadInput, InfluenceError
from influence_core.service.catalog import default_method, methods, overview, predictions, studies
from influence_core.service.inputs import input_attribution
from influence_core.service.requests import disk_use, explain, export_scores, query, start_fit
from influence_core.service.rowcards import row_card
from influence_core.service.tasks import cancel_job, dismiss_job, job, listed_jobs, touch_job
from influence_core.service.views import (
    ConfigField,
    Datum,
    ExplainRequest,
    Explanation,
    FitNeeded,
    InputAttribution,
    Interval,
    JobView,
    MethodView,
    Overview,
    PredictionFilter,
    PredictionList,
    QueryView,
    RankedRow,
    RegressionFigures,
    RowCard,
    StudyCard,
)  # fmt: skip

__all__ = [
    "BadInput", "ConfigField", "Datum", "ExplainRequest", "Explanation", "FitNeeded", "InfluenceError",
    "InputAttribution", "Interval", "JobView", "MethodView", "Overview", "PredictionFilter", "PredictionList",
    "QueryView", "RankedRow", "RegressionFigures", "RowCard", "StudyCard", "cancel_job", "default_method", "disk_use",
    "dismiss_job", "explain", "export_scores", "input_attribution", "job", "listed_jobs", "methods", "overview",
    "predictions", "query", "row_card", "start_fit", "studies", "touch_job",
]  # fmt: skip
