"""What a method costs: fitting it, and answers that are work of their own."""

from __future__ import annotations

import pytest
from torch import nn

from influence_core import registry
from influence_core.costs import ABSURD_SECONDS, absurdity, cost, cost_in_words
from influence_core.errors import Unavailable
from influence_core.estimator import Cost
from influence_core.fitting import fit
from influence_core.run import Run
from influence_core.task import Recipe, Task
from tests.cases import CASES, vectors


@pytest.mark.parametrize("name", sorted(registry.entries()))
def test_answers_cost_something_exactly_where_they_are_solved_for(name: str) -> None:
    estimate = cost(CASES["mlp"](), registry.made(name), Run())
    solving = registry.entries()[name].info.query == "solve"
    assert (estimate.asking > 0, estimate.query > 0) == (solving, solving)
    assert estimate.total(100) == pytest.approx(estimate.seconds + estimate.asking + 100 * estimate.query)
    assert ("for every new prediction" in cost_in_words(estimate)) == solving


def test_a_longer_solve_costs_more() -> None:
    task, run = CASES["mlp"](), Run()

    def asking(name: str, **options: object) -> float:
        return cost(task, registry.made(name, options), run).answering(10)

    assert asking("if_cg", max_iterations=2000) == pytest.approx(10 * asking("if_cg", max_iterations=200))
    assert asking("if_lissa", depth=1000) > 5 * asking("if_lissa", depth=100)
    wrapped = {"method": "if_cg", "seeds": 3}  # every member answers
    assert asking("seed_average", **wrapped) >= 3 * asking("if_cg")
    assert asking("seed_average", **{**wrapped, "seeds": 6}) == pytest.approx(2 * asking("seed_average", **wrapped))


def test_a_cost_is_absurd_from_an_hour_on() -> None:
    assert absurdity(ABSURD_SECONDS - 1) == ""
    assert "about 3.0 hours" in absurdity(3 * 3600)
    assert cost_in_words(Cost(5.0, 3e6, 20.0, 2.0)) == (
        "about 5 seconds, 3 MB of disk, then about 22 seconds for every new prediction"
    )


def test_a_method_that_a_task_rules_out_says_so_before_any_work() -> None:
    train, test = vectors(8, 1), vectors(3, 2)
    recipe = Recipe(optimizer="adam", epochs=1, batch_size=4)
    task = Task(lambda: nn.Linear(5, 3), train, test, checkpoints=[nn.Linear(5, 3).state_dict()],
                learning_rates=[0.1], recipe=recipe)  # fmt: skip
    for name in ("sgd_influence", "source", "hydra"):
        reason = registry.refusal(registry.made(name), task)
        assert "trained by adam" in reason and "magic" in reason
        with pytest.raises(Unavailable, match="trained by adam"):
            fit(task, registry.made(name), Run())
    assert registry.refusal(registry.made("magic"), task) == ""
    wide = Task(nn.Linear(5000, 3), (train[0].repeat(1, 1000), train[1]), (test[0].repeat(1, 1000), test[1]))
    assert "the limit is 12,000 parameters" in registry.refusal(registry.made("if_exact"), wide)
