"""Outcomes of many subsets: the numbers of single ones to rounding, whatever trains them; cancelled and gone on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from influence_core import Recipe, Run, Store, Task
from influence_core.errors import Cancelled
from influence_core.outcomes import Correction, Outcomes

SUBSETS = [[0, 1], [5], [], [1, 0]]


def task(*, dropout: float = 0.0, optimizer: str = "sgd") -> Task:
    def factory() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Dropout(dropout), nn.Linear(5, 3))

    generator = torch.Generator().manual_seed(2)
    train = torch.randn(19, 4, generator=generator), torch.randint(3, (19,), generator=generator)
    test = torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)
    recipe = Recipe.checked({"optimizer": optimizer, "learning_rate": 0.05, "epochs": 3, "dtype": "float64"})
    return Task(factory, train, test, checkpoints=[factory().state_dict()], learning_rates=[0.05], recipe=recipe)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}, {"optimizer": "adam"}])
def test_many_are_the_single_ones_to_rounding(options: dict, tmp_path: Path) -> None:
    case = task(**options)
    many, single = (Outcomes(case, Run(store=Store(tmp_path / name))) for name in ("many", "single"))
    many.many(SUBSETS, [0, 4])
    assert len(many.run.artifacts.keys()) == 6  # three subsets, two seeds
    for removed in SUBSETS:
        for seed in (0, 4):
            found, expected = many.known(sorted(removed), seed), single.without(removed, seed)
            assert found is not None and set(found.outputs) == {"train", "test"}
            for split, values in expected.outputs.items():
                torch.testing.assert_close(found.outputs[split], values, rtol=0, atol=1e-12)


def test_a_cancelled_run_keeps_its_stacks_and_goes_on(tmp_path: Path) -> None:
    case, asked = task(), []

    def cancel() -> bool:
        asked.append(1)
        return len(asked) > 3  # in the first epoch of the second seed

    reported = []
    with pytest.raises(Cancelled):
        Outcomes(case, Run(store=Store(tmp_path), cancel=cancel)).many(SUBSETS, [0, 1])
    outcomes = Outcomes(case, Run(store=Store(tmp_path), progress=lambda *said: reported.append(said)))
    assert [outcomes.has(Correction(()), seed) for seed in (0, 1)] == [True, False]
    outcomes.many(SUBSETS, [0, 1], "halves")
    assert outcomes.has(Correction((5,)), 1)
    assert reported[0] == ("halves", 1.0, 3) and reported[-1] == ("halves", 3, 3)
    reported.clear()
    outcomes.many(SUBSETS, [0, 1])
    assert reported == [("retraining", 0, 0)]
