"""Every public function of the service, asked by somebody about a study that they may not see.

The functions are found by looking, so a new one is asked too; one with a parameter of a kind that this file does not
know fails until it is taught. Each is asked twice: about a study that is there but not theirs, and about one that is
not there. Both answers must be the same but for the name, and nothing of the hidden study may change.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from influence_core import service
from influence_core.errors import InfluenceError
from influence_core.service import access
from influence_core.service.jobs import Jobs
from tests.service.test_access import ANN, BOB, FILE, started, tree

MINE, HIDDEN, MISSING = "table", "linear", "no-such"
# Asked before there is anybody to ask about, or about nobody's study.
NOT_ABOUT_STUDIES = {"on_behalf", "set_identity", "start_demo", "reset_demo", "needs_person", "visitor", "plain"}
REQUEST = service.ExplainRequest(ids=("row 003",), method="tracin_cp")
# What a parameter is given, by its name. {study} is the name asked about, {token} its upload.
GIVEN: dict[str, Any] = {
    "study": "{study}", "name": "{study}", "token": "{token}", "request": REQUEST, "query": service.PredictionFilter(),
    "chosen": service.PredictionFilter(), "split": "test", "row_id": "row 003", "target": "predicted",
    "method": "tracin_cp", "client": "somebody", "job_id": 1, "format": "csv", "roles": {}, "title": "Another title",
    "task": "", "content": None, "values": {}, "label": "label", "version": "v1", "before": "", "after": "v1",
    "filter": service.SuspectFilter(), "retrain": False, "row": "row 003", "kind": "outliers",
    "asked": service.MapRequest(), "polygon": ((-9, -9), (9, -9), (0, 9)), "drawn": "pca", "rows": (("train", 1007),),
    "reviewer": "ann",
    "reviewers": ["ann", "ben"],
    "overlap": 0.2,
    "methods": ["grad_dot"],
    "subsets": 10,
    "seeds": 1,
    "file": b"x,y\n1,2\n",
    "acts": [],
    "row_ids": ["row 003"],
    "source": "a test",
    "text": "",
    "action": "drop",
    "first": 0,
    "batch": service.Batch("train", "drop", ("row 003",)),
    "tab": "a",
    "number": 1,
    "evidence": {},
    "change": service.CheckRequest(),
    "files": (service.PatchFile("p.csv", b"row_id,split,action,old_label,new_label\n"),),
    "follow": False,
}  # fmt: skip


def functions() -> list[str]:
    found = [name for name in service.__all__ if inspect.isfunction(getattr(service, name))]
    assert len(found) >= 25
    return [name for name in found if name not in NOT_ABOUT_STUDIES]


@pytest.fixture
def hidden(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Bob's study with a job, and an import that he has under way; Ann asks."""
    monkeypatch.setattr("influence_core.service.imports.ensure_worker", lambda studies: False)
    monkeypatch.setattr("influence_core.service.tasks.ensure_worker", lambda studies: False)
    (own_studies / "access.toml").write_text(FILE.replace('[studies."*"]', "[studies.other]"), encoding="utf-8")
    Jobs(own_studies / HIDDEN).submit("a-key", "A hidden job", ["fit"], "bob")
    access._registered.clear()
    access.set_identity(lambda: BOB, "on", None)
    pending = started("Hidden import")
    token = service.pending_imports()[0].token
    access.set_identity(lambda: ANN, "on", None)
    monkeypatch.setitem(globals(), "PENDING", (pending, token))
    yield own_studies
    access._registered.clear()


PENDING = ("", "")


def value_of(function: str, parameter: inspect.Parameter, study: str, token: str) -> Any:
    if parameter.name not in GIVEN:
        if parameter.default is not inspect.Parameter.empty:
            return parameter.default
        pytest.fail(f"{function} has a parameter '{parameter.name}' that GIVEN in this file does not know")
    if function == "save_pred_probs" and parameter.name in ("name", "content"):
        return "a.csv" if parameter.name == "name" else io.BytesIO(b"id,a\n1,1\n")
    if function == "save_upload" and parameter.name in ("name", "content"):
        return "a.csv" if parameter.name == "name" else io.BytesIO(b"a,label\n1,x\n")
    if parameter.name == "chosen" and function == "check_import":
        return {"a": "feature", "label": "label"}
    given = GIVEN[parameter.name]
    return {"{study}": study, "{token}": token}.get(given, given) if isinstance(given, str) else given


def answer(name: str, study: str, token: str) -> Any:
    """What the function returns, or the class and words of its refusal."""
    function: Callable[..., Any] = getattr(service, name)
    parameters = inspect.signature(function).parameters.values()
    given = {
        parameter.name: value_of(name, parameter, study, token)
        for parameter in parameters
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    try:
        return function(**given)
    except InfluenceError as problem:
        return type(problem), problem.args


def words(value: Any) -> str:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return repr(value)


@pytest.mark.parametrize("name", functions())
def test_nothing_of_a_hidden_study_comes_out(hidden: Path, name: str) -> None:
    pending, token = PENDING
    before = {folder: tree(hidden / folder) for folder in (HIDDEN, pending, f".uploads/{token}")}
    for study, missing in ((HIDDEN, MISSING), (pending, pending[:-1] + ("0" if pending[-1] != "0" else "1"))):
        other_token = "0" * 32
        said = words(answer(name, study, token))
        same = words(answer(name, missing, other_token))
        if name == "save_upload":  # says nothing but a new token
            assert re.fullmatch(r"'[0-9a-f]{32}'", said)
            continue
        assert said.replace(study, "*") == same.replace(missing, "*"), name
        for secret in ("Small linear", "A hidden job", "Hidden import", "mine.csv", str(hidden), BOB):
            assert secret not in said, name
    assert before == {folder: tree(hidden / folder) for folder in before}


@pytest.mark.parametrize("name", functions())
def test_the_walk_does_get_something_where_it_may(hidden: Path, name: str) -> None:
    """The same calls reach the study where whoever asks may see it: the walk above tests something."""
    if "study" not in inspect.signature(getattr(service, name)).parameters:
        pytest.skip("asks about no study")
    refused = answer(name, MISSING, "0" * 32)
    allowed = answer(name, MINE, "0" * 32)
    assert words(refused).replace(MISSING, MINE) != words(allowed)


def test_the_walk_sees_a_function_without_a_guard(hidden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(study: str) -> list[str]:
        return [path.name for path in (hidden / study).glob("*.parquet")]

    monkeypatch.setattr(service, "careless", careless, raising=False)
    with pytest.raises(AssertionError):
        test_nothing_of_a_hidden_study_comes_out(hidden, "careless")
