"""Everything the screens may ask. They import this package and nothing deeper."""

from influence_core.errors import BadInput, InfluenceError
from influence_core.service.catalog import default_method, methods, overview, predictions, studies
from influence_core.service.imports import (
    cancel_import,
    check_import,
    discard_import,
    drop_upload,
    pending_import,
    pending_imports,
    preview,
    retry_import,
    save_upload,
    start_import,
)
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
    ImportCheck,
    ImportColumn,
    ImportPreview,
    InputAttribution,
    Interval,
    JobView,
    MethodView,
    Overview,
    PendingImport,
    PredictionFilter,
    PredictionList,
    QueryView,
    RankedRow,
    RegressionFigures,
    RowCard,
    StudyCard,
)  # fmt: skip

__all__ = [
    "BadInput", "ConfigField", "Datum", "ExplainRequest", "Explanation", "FitNeeded", "ImportCheck", "ImportColumn",
    "ImportPreview", "InfluenceError", "InputAttribution", "Interval", "JobView", "MethodView", "Overview",
    "PendingImport", "PredictionFilter", "PredictionList", "QueryView", "RankedRow", "RegressionFigures", "RowCard",
    "StudyCard", "cancel_import", "cancel_job", "check_import", "default_method", "discard_import", "disk_use",
    "dismiss_job", "drop_upload", "explain", "export_scores", "input_attribution", "job", "listed_jobs", "methods",
    "overview", "pending_import", "pending_imports", "predictions", "preview", "query", "retry_import", "row_card",
    "save_upload", "start_fit", "start_import", "studies", "touch_job",
]  # fmt: skip
