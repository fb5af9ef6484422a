"""A change of a role answers from what is known; a large file is read in the background, which can be stopped."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from influence_core import service
from influence_core.service import imports, previews
from influence_core.service.quality import group_names, training_in_words


@pytest.fixture(autouse=True)
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("INFLUENCE_STUDIES", str(tmp_path / "studies"))
    monkeypatch.setattr(imports, "ensure_worker", lambda folder: False)
    monkeypatch.setattr(previews, "_opened", previews.OrderedDict())
    yield
    for held in list(previews._opened.values()):
        held.close()


def uploaded(n: int = 6000) -> str:
    lines = [f"{i},{'f' if i % 2 else 'm'},{i * 7 % 50},{i % 3 % 2},{i % 3 % 2}" for i in range(n)]
    return service.save_upload("a.csv", io.BytesIO(("id,sex,age,late,target\n" + "\n".join(lines)).encode()))


def test_after_the_first_read_a_change_of_roles_reads_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    token = uploaded()
    roles = {column.name: column.role for column in service.preview(token).columns}
    assert roles == {"id": "id", "sex": "sensitive-feature", "age": "feature", "late": "feature", "target": "label"}
    source = previews._held(token).source
    monkeypatch.setattr(source, "batches", lambda *size: pytest.fail("the rows are read again"))
    check = service.check_import(token, roles)
    assert check.roles is not None and check.roles["sensitive"] == ["sex"] and "of memory" in check.cost
    assert [name for name, _ in check.leaks] == ["late"]
    assert service.check_import(token, roles | {"late": "ignored"}).leaks == ()
    assert service.check_import(token, roles | {"sex": "sensitive"}).roles["features"] == ["age", "late"]  # type: ignore[index]
    for change in ({"age": "id", "id": "shown"}, {"target": "shown", "age": "label"}):
        service.check_import(token, roles | change)


def test_a_large_file_is_read_once_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "LARGE_BYTES", 1000)
    token = uploaded()
    end, said = time.monotonic() + 60, service.reading(token)
    assert said is not None and 0 <= said.fraction <= 1
    thread = previews._held(token)._thread
    while service.reading(token) is not None and time.monotonic() < end:
        time.sleep(0.02)
    assert service.reading(token) is None and previews._held(token)._thread is thread
    assert service.preview(token).n_rows == 6000


def test_dropping_a_large_file_stops_its_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "LARGE_BYTES", 1000)
    real, steps = previews.column_facts, []

    def slow(source, names, run):  # noqa: ANN001, ANN202
        for _ in run.track(range(10_000), "looking", 10_000):
            steps.append(1)
            time.sleep(0.01)
        return real(source, names, run)

    monkeypatch.setattr(previews, "column_facts", slow)
    token = uploaded()
    assert service.reading(token) is not None
    thread = previews._held(token)._thread
    while not steps:
        time.sleep(0.01)
    service.drop_upload(token)
    assert thread is not None
    thread.join(20)
    assert not thread.is_alive() and len(steps) < 5000
    with pytest.raises(service.BadInput, match="gone"):
        service.reading(token)


def test_groups_are_values_or_quarters_and_the_rarest_share_one() -> None:
    assert group_names(np.asarray(["a", None, "b"], object)).tolist() == ["a", "–", "b"]
    bands = group_names(np.arange(100.0))
    assert len(set(bands.tolist())) == 4 and {int((bands == band).sum()) for band in set(bands.tolist())} <= {
        24,
        25,
        26,
    }
    many = np.asarray([f"c{k % 20 if k > 200 else 0}" for k in range(400)], object)
    assert len(set(group_names(many).tolist())) == 9 and "all others" in group_names(many)


def interval(value: float) -> service.Interval:
    return service.Interval(value, value - 0.02, value + 0.02, 500)


@pytest.mark.parametrize(
    ("losses", "train", "test", "said"),
    [
        ((1.0, 1.1), 0.5, 0.5, "did not fall"), ((1.0, 0.3, 0.2), 1.0, 0.8, "by heart"),
        ((1.0, 0.8, 0.6, 0.4), 0.8, 0.8, "still falling"),
        (tuple(0.2 + 0.8 * 0.5**k for k in range(30)), 0.9, 0.88, "come to rest"),
    ],
)  # fmt: skip
def test_a_training_is_judged_in_plain_words(losses: tuple[float, ...], train: float, test: float, said: str) -> None:
    words, is_warning = training_in_words(losses, {"train": interval(train), "test": interval(test)})
    assert said in words and is_warning == (said != "come to rest")
