"""Everything the screens may ask. They import this package and nothing deeper."""

from influence_core.errors import BadInput, InfluenceError
from influence_core.service.access import Role, SignIn, Visitor, needs_person, on_behalf, role, set_identity, visitor
from influence_core.service.batches import batches, decide_together, decided_among, relabelling, undo_batch
from influence_core.service.catalog import default_method, methods, overview, predictions, studies
from influence_core.service.checks import (
    SUGGESTED,
    CheckOffer,
    CheckRequest,
    ChecksView,
    CheckView,
    ForeseenView,
    Moved,
    check_labels,
    check_offer,
    checks,
    start_check,
)
from influence_core.service.dealing import Dealing, Shares, dealing, save_dealing, shares
from influence_core.service.decisions import (
    cleaned_data,
    cleaned_original,
    decisions_log,
    decisions_page,
    patch_file,
    resolve_conflict,
    undo_last,
)
from influence_core.service.demo import reset_demo, start_demo
from influence_core.service.guidelines import (
    class_definitions,
    definable_classes,
    guidelines,
    save_class_definition,
    save_guidelines,
)
from influence_core.service.imports import (
    cancel_import,
    check_images,
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
from influence_core.service.map import map_cards, map_points, row_ids_in_polygon, rows_in_polygon, start_projection
from influence_core.service.map_views import (
    GroupInfluence,
    MapColours,
    MapLink,
    MapNeeded,
    MapPoints,
    MapRequest,
    MapSelection,
    MapView,
)
from influence_core.service.oddities import oddities
from influence_core.service.own_probabilities import (
    OwnProbabilities,
    pred_probs,
    remove_pred_probs,
    save_pred_probs,
)
from influence_core.service.patch_files import apply_patch, patch_lines, patch_page
from influence_core.service.patch_views import PATCH_STATES, PatchFile, PatchLine, PatchPage
from influence_core.service.queues import frozen_queue, has_moved, queue, save_queue
from influence_core.service.removal import removal, removal_plan, start_removal
from influence_core.service.requests import disk_use, explain, export_scores, query, start_fit
from influence_core.service.review_acts import next_steps, record_acts
from influence_core.service.review_views import (
    Batch,
    BatchDone,
    BatchLine,
    Decided,
    DecisionsPage,
    NextSteps,
    Queue,
    Receipt,
    ReviewBatch,
    ReviewCard,
    ReviewStates,
    StepView,
)
from influence_core.service.reviews import (
    known_reviewer,
    plain,
    review_batch,
    review_place,
    review_states,
)
from influence_core.service.rowcards import row_card
from influence_core.service.suspect_batches import suspect_batch
from influence_core.service.suspect_evidence import suspect_evidence
from influence_core.service.suspect_views import (
    BudgetPrecision,
    Oddity,
    OddityPage,
    SuspectColumn,
    SuspectEvidence,
    SuspectFilter,
    SuspectPage,
    SuspectRow,
)
from influence_core.service.suspects import export_suspects, start_suspects, suspect_rows, suspects
from influence_core.service.tasks import cancel_job, dismiss_job, job, listed_jobs, touch_job
from influence_core.service.trust import fidelity, measuring_plan, resume_measuring, start_measuring, trust
from influence_core.service.trust_views import (
    Agreement,
    Candidate,
    MeasuringPlan,
    MetricChoice,
    MetricTable,
    RemovalLine,
    RemovalPage,
    TrustLine,
    TrustPage,
)
from influence_core.service.typed import keep_typed, typed_form
from influence_core.service.typed_views import TypedField, TypedForm
from influence_core.service.versions import (
    Comparison,
    Paired,
    RetrainOffer,
    SamePrediction,
    Seen,
    Version,
    comparison,
    delete_version,
    rename_version,
    retrain_offer,
    same_prediction,
    start_retrain,
    versions,
)
from influence_core.service.views import (
    ConfigField,
    Datum,
    ExplainRequest,
    Explanation,
    FitNeeded,
    GroupFigures,
    ImagesCheck,
    ImagesPreview,
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
    StudyPreview,
    TrainingFigures,
)  # fmt: skip

__all__ = [
    "DecisionsPage", "Queue", "Receipt", "ReviewBatch", "ReviewCard", "ReviewStates", "cleaned_data",
    "decisions_log", "decisions_page", "NextSteps", "StepView", "class_definitions", "definable_classes",
    "guidelines", "known_reviewer", "next_steps",
    "patch_file", "plain", "queue", "record_acts", "resolve_conflict",
    "review_batch", "review_place", "review_states", "save_class_definition", "save_guidelines",
    "save_queue", "undo_last",
    "Batch", "BatchDone", "BatchLine", "Decided", "batches", "decide_together", "decided_among", "relabelling",
    "suspect_batch", "undo_batch", "OwnProbabilities", "pred_probs", "remove_pred_probs", "save_pred_probs",
    "Agreement", "Candidate", "MeasuringPlan", "MetricChoice", "MetricTable", "RemovalLine", "RemovalPage",
    "TrustLine", "TrustPage", "fidelity", "measuring_plan", "removal", "removal_plan", "resume_measuring",
    "start_measuring", "start_removal", "trust",
    "cleaned_original", "frozen_queue", "has_moved", "Dealing", "Shares", "dealing", "save_dealing", "shares",
    "PATCH_STATES", "PatchFile", "PatchLine", "PatchPage", "apply_patch", "patch_lines", "patch_page",
    "SUGGESTED", "CheckOffer", "CheckRequest", "CheckView", "ChecksView", "ForeseenView", "Moved", "check_labels",
    "check_offer", "checks", "start_check",
    "BadInput", "BudgetPrecision", "Comparison", "ConfigField", "Datum", "ExplainRequest", "Explanation", "FitNeeded",
    "GroupFigures", "GroupInfluence", "ImagesCheck", "ImagesPreview", "ImportCheck", "ImportColumn", "ImportPreview",
    "InfluenceError", "InputAttribution", "Interval", "JobView", "MapColours", "MapLink", "MapNeeded", "MapPoints",
    "MapRequest", "MapSelection", "MapView", "MethodView", "Oddity", "OddityPage", "Overview", "Paired",
    "PendingImport", "PredictionFilter", "PredictionList", "QueryView", "RankedRow", "Reading", "RegressionFigures",
    "RetrainOffer", "Role", "RowCard", "SamePrediction", "Seen", "SignIn", "StudyCard", "StudyLine", "StudyPreview",
    "SuspectColumn", "SuspectEvidence", "SuspectFilter", "SuspectPage", "SuspectRow", "TrainingFigures", "TypedField",
    "TypedForm", "Version", "Visitor", "backup", "backup_problem", "backup_size", "cancel_import", "cancel_job",
    "check_images", "check_import", "clear_cache", "comparison", "default_method", "delete_study", "delete_version",
    "discard_import", "disk_use", "dismiss_job", "drop_upload", "explain", "export_scores", "export_suspects",
    "input_attribution", "job", "keep_typed", "listed_jobs", "map_cards", "map_points", "methods", "needs_person",
    "oddities", "on_behalf", "overview", "pending_import", "pending_imports", "predictions", "preview", "query",
    "reading", "rename_study", "rename_version", "reset_demo", "retrain_offer", "retry_import", "role", "row_card",
    "row_ids_in_polygon", "rows_in_polygon", "same_prediction", "save_upload", "set_identity", "start_demo",
    "start_fit", "start_import", "start_projection", "start_retrain", "start_suspects", "studies", "study_lines",
    "suspect_evidence", "suspect_rows", "suspects", "tidy_studies", "touch_job", "typed_form", "versions", "visitor",
]  # fmt: skip
