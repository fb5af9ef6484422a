"""The catalogue: ids, aliases, presets, and why a method cannot run."""

from __future__ import annotations

from typing import final

import pytest
from torch import nn

from influence_core import registry
from influence_core.config import Config
from influence_core.errors import BadInput, Unavailable
from influence_core.estimator import Cost, Estimator, Fitted, Info, Sizes
from influence_core.estimators.bilinear import ProjectedConfig
from influence_core.estimators.gradient.gas import GasConfig
from influence_core.run import Run
from influence_core.task import Needs, Recipe, Task
from tests.cases import CASES, vectors


def test_entries_are_sorted_and_named_alike() -> None:
    entries = registry.entries()
    assert list(entries) == sorted(entries) and {"tracin_cp", "tracin_fast", "grad_dot", "gas"} <= set(entries)
    assert all(name == entry.info.name for name, entry in entries.items())
    entries.clear()
    assert registry.entries(), "the caller got the catalogue itself"


def test_an_alias_and_a_near_miss() -> None:
    assert registry.found("tracin").info.name == "tracin_cp"
    with pytest.raises(BadInput, match="Did you mean 'tracin_cp'"):
        registry.found("tracin_xp")
    with pytest.raises(BadInput, match="Use one of: .*grad_dot"):
        registry.found("zzzzzzzz")


def test_influence_means_what_the_model_can_bear() -> None:
    assert registry.found("influence", CASES["mlp"]()).info.name == "if_exact"
    large = Task(nn.Linear(3000, 3), *[(vectors(2, 1)[0].repeat(1, 600), vectors(2, 1)[1])] * 2)
    assert large.n_params > 5000
    assert registry.found("influence", large).info.name == "if_cg"


def test_options_go_over_the_presets() -> None:
    assert registry.made("tracin_fast").config.layers == ("last",)  # type: ignore[attr-defined]
    changed = registry.made("tracin_fast", {"storage": "half"})
    assert (changed.config.layers, changed.config.storage) == (("last",), "half")  # type: ignore[attr-defined]
    assert registry.made("tracin_fast", {"layers": None}).config.layers is None  # type: ignore[attr-defined]
    assert registry.entries()["tracin_fast"].defaults.to_json()["layers"] == ["last"]
    assert changed.named.name == "tracin_fast" and changed.info.name == "tracin_cp"


def test_a_preset_adds_to_what_its_class_needs() -> None:
    entries = registry.entries()
    assert Needs.LAST_LAYER in entries["tracin_fast"].info.needs
    assert Needs.LAST_LAYER not in entries["tracin_cp"].info.needs
    assert entries["tracin_cp"].info.needs in entries["tracin_fast"].info.needs


def test_a_config_stands_for_its_method_where_there_is_one() -> None:
    made = registry.made(GasConfig(weights="uniform"))
    assert made.named.name == "gas" and made.config == GasConfig(weights="uniform")


@pytest.mark.parametrize("config", [ProjectedConfig(), Recipe()])
def test_a_config_of_several_methods_or_none_is_refused(config: Config) -> None:
    """Options shared by two methods must not silently mean the first of them."""
    with pytest.raises(BadInput) as error:
        registry.made(config)
    assert "id" in error.value.fix
    if type(config) is ProjectedConfig:
        assert "grad_dot" in error.value.why and "tracin_cp" in error.value.why


def test_why_a_method_cannot_run() -> None:
    task = Task(nn.Linear(5, 3), vectors(4, 1), vectors(2, 2))
    reasons = registry.available(task)
    assert set(reasons) == set(registry.entries())
    assert reasons["grad_dot"] == ""
    assert "learning rate at each checkpoint" in reasons["tracin_cp"] and "learning_rates=" in reasons["tracin_cp"]
    registry.check_available(registry.entries()["grad_dot"].info, task)
    with pytest.raises(Unavailable) as error:
        registry.check_available(registry.entries()["tracin_cp"].info, task)
    assert str(error.value).startswith("TracIn cannot run here: It needs the learning rate at each checkpoint")
    assert error.value.fix == "To make it available, give learning_rates=[...]."


def test_two_missing_things_are_both_named_once() -> None:
    bare = Task(lambda: nn.Linear(5, 3), vectors(4, 1), vectors(2, 2))
    reason = registry.available(bare)["tracin_fast"]
    for words in ("checkpoints recorded during training", "learning rate at each checkpoint", "a last Linear layer"):
        assert reason.count(words) == 1
    with pytest.raises(Unavailable) as error:
        registry.check_available(registry.entries()["tracin_fast"].info, bare)
    for words in ("checkpoints recorded", "learning rate", "last Linear"):
        assert words in str(error.value)


@pytest.fixture
def clean_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.entries()
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))


@pytest.mark.usefixtures("clean_catalogue")
def test_a_method_registers_itself_once_and_names_its_packages() -> None:
    @final
    @registry.register
    class Mine(Estimator):
        info = Info(
            "mine", "Mine", "baseline", "A sentence.", "x", "y", Needs.NONE, "rank", packages=("no_such_package",)
        )

        def fit(self, task: Task, run: Run) -> Fitted:
            raise NotImplementedError

        def cost(self, task: Task, sizes: Sizes) -> Cost:
            return Cost(0)

    assert "mine" in registry.entries()
    assert (
        registry.available(CASES["mlp"]())["mine"] == "needs the package no_such_package: pip install no_such_package"
    )
    with pytest.raises(ValueError, match="two methods are called 'mine'"):
        registry.register(Mine)
