"""Everything the screens may ask. They import this package and nothing deeper."""

from influence_core.errors import BadInput, InfluenceError
from influence_core.service.access import Role, SignIn, Visitor, needs_person, on_behalf, role, set_identity, visitor
from influence_core.service.catalog import default_method, methods, overview, predictions, studies
from influence_core.service.demo import reset_demo, start_demo
from influence_core.service.imports import (
    cancel_import,
    check_import,
    discard_import,
    drop_upload,
    pending_import,
    pending_imports,
    preview,
    reading,
    retry_import,
    save_upload,
    start_import,
)
from influence_core.service.inputs import input_attribution
from influence_core.service.manage import (
    StudyLine,
    backup,
    backup_problem,
    backup_size,
    clear_cache,
    delete_study,
    rename_study,
    study_lines,
    tidy_studies,
)
from influence_core.service.requests import disk_use, explain, export_scores, query, start_fit
from influence_core.service.rowcards import row_card
from influence_core.service.tasks import cancel_job, dismiss_job, job, listed_jobs, touch_job
from influence_core.service.typed import keep_typed, typed_form
from influence_core.service.typed_views import TypedField, TypedForm
from influence_core.service.views import (
    ConfigField,
    Datum,
    ExplainRequest,
    Explanation,
    FitNeeded,
    GroupFigures,
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
    Reading,
    RegressionFigures,
    RowCard,
    StudyCard,
    TrainingFigures,
)  # fmt: skip

__all__ = [
    "BadInput", "ConfigField", "Datum", "ExplainRequest", "Explanation", "FitNeeded", "GroupFigures", "ImportCheck",
    "ImportColumn", "ImportPreview", "InfluenceError", "InputAttribution", "Interval", "JobView", "MethodView",
    "Overview", "PendingImport", "PredictionFilter", "PredictionList", "QueryView", "RankedRow", "Reading",
    "RegressionFigures", "Role", "RowCard", "SignIn", "StudyCard", "StudyLine", "TrainingFigures", "TypedField",
    "TypedForm", "Visitor", "backup", "backup_problem", "backup_size", "cancel_import", "cancel_job", "check_import",
    "clear_cache", "default_method", "delete_study", "discard_import", "disk_use", "dismiss_job", "drop_upload",
    "explain", "export_scores", "input_attribution", "job", "keep_typed", "listed_jobs", "methods", "needs_person",
    "on_behalf", "overview", "pending_import", "pending_imports", "predictions", "preview", "query", "reading",
    "rename_study", "reset_demo", "retry_import", "role", "row_card", "save_upload", "set_identity", "start_demo",
    "start_fit", "start_import", "studies", "study_lines", "tidy_studies", "touch_job", "typed_form", "visitor",
]  # fmt: skip
