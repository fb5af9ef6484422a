"""On the Explain screen: what another method costs once both are fitted, beside an empty rerun of Streamlit.

The demo study of digits. The answer of ``tracin_cp`` to a row is there; then the service is asked the same with
``if_ekfac``, a row at a time, each for the first time. What the screen adds (drawing) is the same for every method.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.browser import EMPTY_APP
from benchmarks.timing import Report, middle, seconds

ROWS = 40
BAR = 0.1  # seconds beyond an empty rerun


def run(report: Report) -> None:
    """Measure both in turn."""
    from tests.e2e.conftest import build_demo

    with tempfile.TemporaryDirectory() as work:
        folder, before = Path(work), os.environ.get("INFLUENCE_STUDIES")
        build_demo("digits", folder / "digits")
        os.environ["INFLUENCE_STUDIES"] = str(folder)
        try:
            _measure(report)
        finally:
            os.environ.pop("INFLUENCE_STUDIES")
            if before is not None:
                os.environ["INFLUENCE_STUDIES"] = before


def _measure(report: Report) -> None:
    from influence_core import fitting, service
    from influence_core.service.opened import opened
    from influence_core.service.requests import Question
    from influence_core.service.views import ExplainRequest, Explanation

    ids = [str(row) for row in opened("digits").study.task.ids("test")[: ROWS + 1]]

    def explained(method: str, row: int) -> Callable[[], Any]:
        return lambda: service.explain("digits", ExplainRequest(method=method, ids=(ids[row],)))

    for method in ("tracin_cp", "if_ekfac"):
        question = Question("digits", ExplainRequest(method=method, ids=(ids[0],)))
        taken = seconds(lambda: fitting.fit(question.held.study.task, question.estimator, question.held.run))[0]  # noqa: B023
        report.add(
            "switching", f"fit {method}{'' if method == 'tracin_cp' else ' from its cached factors'}", f"{taken:.2f} s"
        )
        assert isinstance(explained(method, 0)(), Explanation)
    rerun = _empty_rerun()
    times: dict[str, list[float]] = {"tracin_cp": [], "if_ekfac": [], "back": [], "empty": []}
    for row in range(1, ROWS + 1):
        for name, call in (
            ("tracin_cp", explained("tracin_cp", row)), ("if_ekfac", explained("if_ekfac", row)),
            ("back", explained("tracin_cp", row)), ("empty", rerun),
        ):  # fmt: skip
            times[name].append(seconds(call)[0])
    found = {name: 1e3 * middle(values) for name, values in times.items()}
    late = {name: 1e3 * sorted(values)[int(0.95 * (len(values) - 1))] for name, values in times.items()}
    for name, words in (
        ("empty", "an empty rerun"), ("tracin_cp", "a row by tracin_cp"), ("back", "back to tracin_cp"),
    ):  # fmt: skip
        report.add("switching", f"{words}, median / p95", f"{found[name]:.0f} / {late[name]:.0f} ms")
    report.add(
        "switching",
        "the same row by if_ekfac, on top of the rerun, median / p95",
        f"{found['if_ekfac']:.0f} / {late['if_ekfac']:.0f} ms",
        f"median <= {1e3 * BAR:.0f} ms",
        found["if_ekfac"] <= 1e3 * BAR,
    )


def _empty_rerun() -> Callable[[], Any]:
    """Return a rerun of an app of one button and one number, without a browser."""
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_string(EMPTY_APP).run()
    return lambda: app.button[0].click().run()
