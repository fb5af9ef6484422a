"""Tests beside other libraries, in the environment of ``requirements-rivals.txt``: ``make test-rivals``.

Every test here carries the mark ``rivals``, which ``make test`` leaves out, and is skipped where the package that its
module names in ``NEEDS`` is absent. Warnings of the other libraries are theirs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.rivals)
            item.add_marker(pytest.mark.filterwarnings("default"))
            item.add_marker(pytest.mark.timeout(1800))  # kronfluence fits for a minute on one free core


@pytest.fixture(autouse=True, scope="module")
def _present(request: pytest.FixtureRequest) -> None:
    package: str = request.module.NEEDS
    pytest.importorskip(package, reason=f"{package} is not installed here: make test-rivals")
