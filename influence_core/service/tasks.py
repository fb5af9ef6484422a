"""Jobs as the screens see them: submitted by a question, watched by any browser, revived when their worker dies."""

from __future__ import annotations

from influence_core.errors import BadInput
from influence_core.service.folder import parts_of
from influence_core.service.jobs import Job, Jobs
from influence_core.service.opened import opened, studies_folder
from influence_core.service.views import JobView
from influence_core.service.worker import ensure_worker

_FINISHED_SHOWN = 3


def job_view(job: Job) -> JobView:
    """Return a job as the screens draw it."""
    message = f"{job.message['what']}: {job.message['why']} {job.message['fix']}" if job.message else ""
    return JobView(
        job.id, job.key, job.title, job.state, job.stage, job.fraction, job.seconds_left, job.estimate_seconds,
        message, job.is_active,
    )  # fmt: skip


def _jobs(study: str) -> Jobs:
    return Jobs(opened(study).study.path)


def submitted(study: str, key: str, title: str, argv: list[str], client: str, seconds: float) -> JobView:
    """Queue a command, or join the job of the same key; one about a version says so before the command."""
    version = parts_of(study)[1]
    argv = [f"@{version}", *argv] if version else argv
    job = _jobs(study).submit(key, title, argv, client, seconds)
    ensure_worker(studies_folder())
    return job_view(job)


def resubmitted(study: str, job_id: int, client: str) -> JobView:
    """Queue the command of a job that has ended once more, or join it where it has not.

    Raises:
        BadInput: There is no such job.
    """
    jobs = _jobs(study)
    known = jobs.get(job_id)
    if known is None:
        raise BadInput("There is no such job", f"The study has no job {job_id}.", "Reload the page.")
    again = jobs.submit(known.key, known.title, known.argv, client, known.estimate_seconds)
    ensure_worker(studies_folder())
    return job_view(again)


def found(study: str, key: str) -> JobView | None:
    """Return the latest job of a key that still says something; one that is done or dismissed does not."""
    job = _jobs(study).find(key)
    return None if job is None or job.state == "done" or job.dismissed else job_view(job)


def job(study: str, job_id: int) -> JobView | None:
    """Return a job; looking also revives one whose worker died."""
    ensure_worker(studies_folder())
    known = _jobs(study).get(job_id)
    return None if known is None else job_view(known)


def listed_jobs(study: str) -> list[JobView]:
    """Return the active jobs and the last finished ones, newest first."""
    every = _jobs(study).list()
    if any(item.is_active for item in every):
        ensure_worker(studies_folder())
    finished = [item.id for item in every if not item.is_active][:_FINISHED_SHOWN]
    return [job_view(item) for item in every if item.is_active or item.id in finished]


def touch_job(study: str, job_id: int, client: str) -> None:
    """Say that this browser still waits for a job."""
    _jobs(study).touch(job_id, client)


def cancel_job(study: str, job_id: int, client: str) -> str:
    """Stop waiting; the job ends unless somebody else waits. Return ``cancelled`` or ``detached``."""
    return _jobs(study).cancel(job_id, client)


def dismiss_job(study: str, job_id: int) -> None:
    """Take a finished job off the list."""
    _jobs(study).dismiss(job_id)
