from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from influence_core.errors import BadInput
from influence_core.readers import (
    Roles,
    Source,
    check_roles,
    column_facts,
    corrected_roles,
    cost_in_words,
    guessed_roles,
    import_cost,
    open_source,
    used_columns,
)

SHARED = Path(__file__).parents[3] / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not beside this checkout")
Opened = Callable[[Mapping[str, Any]], Source]
SENTENCE = "a message that is certainly longer than forty characters, number"


@pytest.fixture
def opened(tmp_path: Path):
    sources = []

    def make(columns: Mapping[str, Any]) -> Source:
        pd.DataFrame(columns).to_csv(tmp_path / "a.csv", index=False)
        sources.append(open_source(tmp_path / "a.csv"))
        return sources[-1]

    yield make
    for source in sources:
        source.close()


def test_roles_are_guessed_from_names_and_values(opened: Opened) -> None:
    source = opened(
        {
            "Unnamed: 0": [5] * 10 + [6] * 10, "id": range(100, 120), "name": [f"Person {i}" for i in range(20)],
            "age": [i * 7 % 11 for i in range(20)], "always": [1] * 20, "city": ["x", "y"] * 10,
            "target": ["no", "yes"] * 10, "split": ["train"] * 14 + ["val"] * 3 + ["test"] * 3,
        }
    )  # fmt: skip
    assert guessed_roles(source) == Roles(
        label="target", id="id", split="split", features=("name", "age", "city"), ignored=("Unnamed: 0",)
    )


def test_words_that_hardly_repeat_are_no_features(opened: Opened) -> None:
    source = opened({"name": [f"Person {i}" for i in range(60)], "x": [i % 7 for i in range(60)], "y": [0, 1] * 30})
    assert guessed_roles(source).features == ("x",)


def test_a_text_is_what_the_model_reads(opened: Opened) -> None:
    source = opened({"spam": [0, 1] * 6, "text": [f"{SENTENCE} {i}" for i in range(12)]})
    roles = guessed_roles(source, "spam")
    assert (roles.text, roles.id, roles.features, used_columns(source, roles)) == ("text", None, (), ("text",))


@pytest.mark.parametrize(
    ("values", "task"),
    [(["a", "b"] * 20, "classification"), ([0, 1] * 20, "classification"), (range(40), "regression"),
     ([i / 3 for i in range(40)], "regression"), ([0.0, 1.0, None, 1.0] * 10, "classification"),
     ([True, False] * 20, "classification")],
)  # fmt: skip
def test_the_task_follows_from_the_label(opened: Opened, values: Any, task: str) -> None:
    assert guessed_roles(opened({"x": [i % 9 for i in range(40)], "y": list(values)})).task == task


def test_an_id_that_repeats_late_is_not_guessed(opened: Opened) -> None:
    ids = [*range(20_500), 3]
    source = opened({"id": ids, "x": [i % 5 for i in ids], "y": [i % 2 for i in ids]})
    assert guessed_roles(source).id is None
    with pytest.raises(BadInput, match="rows 4 and 20,501 both have '3'"):
        check_roles(source, Roles(label="y", id="id", features=("x",)))


GOOD: dict[str, Any] = {"k": [1, 1, 2, 3], "x": [1, 2, 1, 2], "s": ["p", "q", "p", "q"], "y": ["a", "b", "a", "b"]}


@pytest.mark.parametrize(
    ("columns", "roles", "message"),
    [
        ({}, {"label": "z"}, "Unknown column: .*no column 'z'"),
        ({}, {"label": "y", "features": ("x", "xx")}, "Did you mean 'x'"),
        ({}, {"label": "y", "id": "y"}, "two roles: 'y'"),
        ({}, {"label": "y", "features": ("y", "x")}, "two roles: 'y'"),
        ({}, {"label": "y", "ignored": ("x", "s", "k")}, "Nothing is left"),
        ({}, {"label": "y", "task": "regression"}, "no number: 'y' holds category values such as 'a'"),
        ({}, {"label": "y", "id": "k"}, "rows 1 and 2 both have '1'"),
        ({}, {"label": "y", "text": "x"}, "The text is no text"),
        ({"y": ["a"] * 4}, {"label": "y"}, "only one value: 'y' is 'a'"),
        ({"y": ["a", None, None, None]}, {"label": "y"}, "missing in 3 of 4 rows, first in 2, 3, 4"),
        ({"y": [None] * 4}, {"label": "y"}, "missing in 4 of 4"),
        (
            {"y": [1.5, 2, float("inf"), 3]},
            {"label": "y", "task": "regression"},
            "infinite or too large: 'y' is inf in row 3",
        ),
        ({"x": [1.5, 2, -1e300, 3]}, {"label": "y", "features": ("x",)}, "too large: 'x' is -1e\\+300 in row 3"),
        ({"k": ["a", "b", None, "c"]}, {"label": "y", "id": "k"}, "does not tell rows apart: 'k': row 3 has none"),
        ({"k": [1.5, 2, 2.5, 3]}, {"label": "y", "id": "k"}, "fractions"),
    ],
)
def test_roles_that_make_no_study_are_refused(
    opened: Opened, columns: dict[str, Any], roles: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        check_roles(opened({**GOOD, **columns}), Roles(**roles))
    assert caught.value.fix


def test_too_many_classes(opened: Opened) -> None:
    source = opened({"x": [i % 3 for i in range(1200)], "y": [f"c{i}" for i in range(1200)]})
    with pytest.raises(BadInput, match="too many classes"):
        check_roles(source, Roles(label="y"))


def test_good_roles_pass_and_round_trip(opened: Opened) -> None:
    source = opened(GOOD)
    roles = guessed_roles(source)
    assert roles.label == "y"
    check_roles(source, roles)
    assert Roles.checked(roles.to_json()) == roles


def test_a_table_without_a_label(opened: Opened) -> None:
    with pytest.raises(BadInput, match="No column can be the label"):
        guessed_roles(opened({"x": [1, 1], "name": ["a", "a"]}))


@shared
@pytest.mark.parametrize(
    ("file", "label"), [("sms-spam.csv", "spam"), ("compas-scores-two-years.csv", "two_year_recid")]
)
def test_the_shared_files(file: str, label: str) -> None:
    with open_source(SHARED / file) as source:
        roles = guessed_roles(source, label)
        assert roles == guessed_roles(source)
        check_roles(source, roles)
        if label == "spam":
            assert (roles.text, roles.id) == ("text", "column 1")
        else:
            assert (roles.text, roles.id) == (None, "id")
            assert {"dob", "age", "race"} <= set(roles.features) and not {"name", "last"} & set(roles.features)


def people(n: int = 60) -> dict[str, Any]:
    return {
        "age": [i * 7 % 40 for i in range(n)], "sex": ["f", "m"] * (n // 2), "race": ["a", "b", "c"] * (n // 3),
        "essex": [i % 5 for i in range(n)], "sample_weight": [1 + i % 3 for i in range(n)],
        "weight": [60 + i % 30 for i in range(n)], "target": [i * 5 % 7 > 3 for i in range(n)],
    }  # fmt: skip


def test_sensitive_columns_and_weights_are_guessed_by_name(opened: Opened) -> None:
    roles = guessed_roles(opened(people()))
    assert roles.sensitive == ("sex", "race") and roles.weight == "sample_weight"
    assert roles.features == ("age", "sex", "race", "essex", "weight")  # a mark beside the role; a body has a weight


def test_a_sensitive_column_is_read_only_as_a_feature_and_a_weight_never(opened: Opened) -> None:
    source = opened(people())
    roles = Roles(label="target", sensitive=("sex", "race"), weight="sample_weight")
    assert used_columns(source, roles) == ("age", "essex", "weight")
    assert used_columns(source, roles.changed(features=("sex", "age"))) == ("sex", "age")
    check_roles(source, roles)
    for change in ({"ignored": ("sex",)}, {"sensitive": ("target",)}, {"id": "sex"}, {"weight": "race"},
                   {"features": ("sample_weight",)}, {"features": ("age",), "ignored": ("age",)}):  # fmt: skip
        with pytest.raises(BadInput):
            check_roles(source, roles.changed(**change))


def test_a_column_that_gets_another_role_loses_its_guessed_ones(opened: Opened) -> None:
    guess = guessed_roles(opened(people()))
    roles = corrected_roles(guess, {"ignored": ["age", "race", "sample_weight"]})
    assert roles.features == ("sex", "essex", "weight") and roles.sensitive == ("sex",) and roles.weight is None
    assert corrected_roles(guess, {"sensitive": ["race"]}).features == ("age", "sex", "essex", "weight")
    assert corrected_roles(guess, {"features": ["race"]}).features == ("race",)
    assert corrected_roles(guess, {}) == guess


def test_facts_are_of_all_rows_and_found_in_one_pass(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 9000
    source = opened({"id": range(n), "x": [None] * 3 + [1e31] + [0.5] * (n - 4), "y": ["a", "b"] * (n // 2)})
    passes, batches = [], source.batches
    monkeypatch.setattr(source, "batches", lambda *size: passes.append(1) or batches(*size))
    facts = column_facts(source, source.names)
    assert (facts["x"].missing, facts["x"].missing_rows, facts["x"].huge) == (3, [1, 2, 3], (4, 1e31))
    assert facts["y"].values == {"a", "b"} and facts["id"].repeated == ""
    for roles in (Roles(label="y", features=("id",), ignored=("x",)), Roles(label="y", features=("id",))):
        check_roles(source, roles)
    assert len(passes) == 1
    with pytest.raises(BadInput, match="row 4"):
        check_roles(source, Roles(label="y", features=("x",)))


def test_reading_by_meaning_needs_a_text(opened: Opened) -> None:
    with pytest.raises(BadInput, match="no text"):
        check_roles(opened(people()), Roles(label="target", reading="meaning"))


def test_a_cost_grows_with_the_rows(opened: Opened) -> None:
    small, large = (import_cost(s, guessed_roles(s)) for s in (opened(people(60)), opened(people(9000))))
    assert 0 < small.disk_bytes < large.disk_bytes and small.memory_bytes < large.memory_bytes
    assert 1 < large.seconds < 600 and "of memory" in cost_in_words(large)
