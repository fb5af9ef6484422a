"""A task: what does not fit together is said at once; what it holds is known by one fingerprint."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from influence_core.api import attribute
from influence_core.errors import BadInput, NumericalProblem
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Needs, Recipe, Task
from tests.cases import CASES, integers, made, normal, vectors

TRAIN, TEST = vectors(9, 1), vectors(4, 2)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def factory() -> nn.Module:
    return made(net, 0)


def states(count: int = 2) -> list[dict[str, Tensor]]:
    return [made(net, seed).state_dict() for seed in range(count)]


def task(**changes: Any) -> Task:
    parts = {"model": factory, "train": TRAIN, "test": TEST, "checkpoints": states(), "learning_rates": [0.1, 0.2]}
    return Task(**{**parts, **changes})


# -- what does not fit together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model": 3}, "The model cannot be used"), ({"model": lambda: "net"}, "The model factory cannot be used"),
        ({"loss": "hinge"}, "Unknown loss"), ({"loss": 3}, "Unknown loss"),
        ({"learning_rates": [0.1]}, "Checkpoints and learning rates do not match"),
        ({"learning_rates": [0.1, -1.0]}, "A learning rate cannot be used"),
        ({"learning_rates": [0.1, float("nan")]}, "A learning rate cannot be used"),
        ({"train_ids": range(3)}, "The train row ids do not match"), ({"test_ids": [1, 1, 2, 3]}, "not unique"),
        ({"train": (TRAIN[0], TRAIN[1][:3])}, "The train rows do not match"),
        ({"test": (TEST[0][:0], TEST[1][:0])}, "empty"),
        ({"checkpoints": states()[0]}, "One checkpoint was given, not a list"),
        ({"checkpoints": "last.pt"}, "One checkpoint was given, not a list"),
        ({"checkpoints": [{"model": states()[0], "epoch": 3}, states()[1]]}, "Checkpoint 0 is no state dict"),
        ({"checkpoints": [states()[0], made(net, 1)]}, "Checkpoint 1 is no state dict"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_said(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInput) as error:
        task(**changes)
    assert what in error.value.what and error.value.fix


def test_a_single_learning_rate_too_many_names_both_numbers() -> None:
    with pytest.raises(BadInput, match="There are 2 and 3"):
        task(learning_rates=[0.1, 0.2, 0.3])


# -- checkpoints ------------------------------------------------------------------------------------------------------


def save_pt(state: Any, path: Path) -> None:
    torch.save(state, path)


@pytest.mark.parametrize(("suffix", "save"), [(".pt", save_pt), (".safetensors", save_file)])
def test_files_equal_state_dicts(tmp_path: Path, suffix: str, save: Callable) -> None:
    paths = [tmp_path / f"{i}{suffix}" for i in range(2)]
    for state, path in zip(states(), paths, strict=True):
        save(state, path)
    on_disk = task(checkpoints=[str(paths[0]), paths[1]])
    assert on_disk.fingerprint == task().fingerprint
    run = Run(device="cpu", dtype=torch.float64, store=Store(tmp_path / "store"))
    found, expected = (attribute(t, "tracin_cp", [0, 1], run=run).scores for t in (on_disk, task()))
    assert torch.equal(found, expected)


def test_a_checkpoint_that_is_gone_is_named(tmp_path: Path) -> None:
    path = tmp_path / "0.pt"
    with pytest.raises(BadInput, match="Checkpoint 1 is gone") as error:
        task(checkpoints=[states()[0], path])
    assert str(path) in error.value.why
    torch.save(states()[1], path)
    known = task(checkpoints=[states()[0], path])
    path.unlink()
    with pytest.raises(BadInput, match="Checkpoint 1 is gone"):
        known.model_at(-1)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "cannot be read"), (b"garbage" * 50, "cannot be read"), ([1, 2], "is no state dict"),
        ({"a": 1}, "is no state dict"), ("module", "cannot be read"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, suffix: str, content: Any, what: str) -> None:
    path = tmp_path / f"x{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(made(net, 0) if content == "module" else content, path)
    with pytest.raises(BadInput) as error:
        task(checkpoints=[path], learning_rates=[0.1])
    assert error.value.what == f"Checkpoint 0 {'cannot be read' if suffix == '.safetensors' else what}"
    assert str(path) in error.value.why and "\n" not in str(error.value)


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["BOMB"],)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
def test_a_pickle_is_refused_without_being_executed(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    for number, save in enumerate(
        [lambda p: p.write_bytes(pickle.dumps(Bomb())), lambda p: torch.save({"w": Bomb()}, p)]
    ):
        path = tmp_path / f"{number}{suffix}"
        save(path)
        with pytest.raises(BadInput, match="Checkpoint 0 cannot be read"):
            task(checkpoints=[path], learning_rates=[0.1])
    assert not (tmp_path / "exploded").exists()


def test_a_checkpoint_of_another_architecture_is_named() -> None:
    other = made(lambda: nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3)), 0).state_dict()
    known = task(checkpoints=[states()[0], other])
    known.model_at(0)
    with pytest.raises(BadInput, match="Checkpoint 1 does not fit the model") as error:
        known.model_at(1)
    assert "size mismatch" in error.value.why and "\n" not in str(error.value)
    missing = {key: value for key, value in states()[0].items() if key != "3.bias"}
    with pytest.raises(BadInput, match="3.bias"):
        task(checkpoints=[missing], learning_rates=[0.1]).model_at(0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_a_checkpoint_with_a_nan_is_named(value: float, name: str, tmp_path: Path) -> None:
    broken = {key: part.clone() for key, part in states()[1].items()}
    broken[name].view(-1)[2] = value
    known = task(checkpoints=[states()[0], broken])
    known.model_at(0)
    with pytest.raises(NumericalProblem, match="Checkpoint 1 is broken") as error:
        known.model_at(1)
    assert name in error.value.why
    with pytest.raises(NumericalProblem):
        attribute(known, "tracin_cp", [0], run=Run(device="cpu", store=Store(tmp_path)))


def test_nan_in_the_data_is_named_with_its_row(tmp_path: Path) -> None:
    x = TRAIN[0].clone()
    x[7, 1] = float("nan")
    broken = task(train=(x, TRAIN[1]), train_ids=[f"r{i}" for i in range(9)])
    with pytest.raises(NumericalProblem, match="r7"):
        attribute(broken, "tracin_cp", [0], run=Run(device="cpu", store=Store(tmp_path)))


def test_nan_in_a_query_is_said(tmp_path: Path) -> None:
    x = TEST[0].clone()
    x[2, 1] = float("nan")
    broken = task(test=(x, TEST[1]))
    run = Run(device="cpu", store=Store(tmp_path))
    assert bool(attribute(broken, "tracin_cp", [0, 1, 3], run=run).scores.isfinite().all())
    with pytest.raises(NumericalProblem, match="A score is not a number"):
        attribute(broken, "tracin_cp", [2], run=run)


def test_a_factory_without_checkpoints_has_no_model() -> None:
    bare = Task(factory, TRAIN, TEST)
    assert Needs.MODEL not in bare.provides and bare.n_checkpoints == 0
    with pytest.raises(BadInput, match="There is no trained model"):
        bare.model_at(-1)


def test_the_explained_model_is_the_last_checkpoint_or_the_module_given() -> None:
    x = TEST[0]
    expected = made(net, 1).eval()(x)
    torch.testing.assert_close(task().model_at(-1, dtype=torch.float64)(x), expected)
    torch.testing.assert_close(Task(made(net, 1), TRAIN, TEST).model_at(-1, dtype=torch.float64)(x), expected)
    torch.testing.assert_close(task().outputs_of("test").double(), expected, rtol=1e-4, atol=1e-5)


def test_later_changes_of_what_was_given_change_nothing() -> None:
    model, given = made(net, 0), states()
    known = Task(model, TRAIN, TEST, checkpoints=given, learning_rates=[0.1, 0.2])
    before = known.model_at(1, dtype=torch.float64)(TEST[0])
    with torch.no_grad():
        for part in (*model.state_dict().values(), *given[1].values()):
            part.zero_()
    model.train()
    model[0] = nn.Linear(5, 6)
    assert torch.equal(known.model_at(1, dtype=torch.float64)(TEST[0]), before)
    known.model_at(1)[0].weight.data.zero_()
    assert torch.equal(known.model_at(1, dtype=torch.float64)(TEST[0]), before)


# -- the fingerprint --------------------------------------------------------------------------------------------------


def custom(factor: float) -> Any:
    def loss(model: Any, batch: Any) -> Tensor:
        return factor * nn.functional.cross_entropy(model(batch.inputs), batch.targets, reduction="none")

    return loss


def one_changed(values: Tensor, position: int, by: float) -> Tensor:
    changed = values.clone()
    changed.view(-1)[position] += by
    return changed


def relabelled(i: int) -> tuple[Tensor, Tensor]:
    return TRAIN[0], torch.where(torch.arange(9) == i, (TRAIN[1] + 1) % 3, TRAIN[1])


class Scaled(nn.Module):
    def __init__(self, factor: float, table: Tensor | None = None, hidden: Tensor | None = None) -> None:
        super().__init__()
        self.factor, self.table = factor, table
        self.register_buffer("hidden", hidden, persistent=False)
        self.layer = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.factor


def scaled(*args: Any) -> dict[str, Any]:
    state = made(lambda: Scaled(1.0), 0).state_dict()
    return {"model": lambda: Scaled(*args), "checkpoints": [state], "learning_rates": [0.1]}


def encoder(activation: str) -> dict[str, Any]:
    def build() -> nn.Module:
        return nn.TransformerEncoderLayer(4, 2, 8, activation=activation)

    x, y = normal(3, 2, 4, seed=1), integers(4, 3, seed=2)
    return {"model": build, "checkpoints": [made(build, 0).state_dict()], "learning_rates": [0.1],
            "train": (x, y), "test": (x, y)}  # fmt: skip


DIFFERENT = {
    "a train label": ({"train": relabelled(4)}, {}),
    "the last train label": ({"train": relabelled(8)}, {}),
    "a train number": ({"train": (one_changed(TRAIN[0], 17, 1e-11), TRAIN[1])}, {}),
    "a test number": ({"test": (one_changed(TEST[0], 0, 1e-3), TEST[1])}, {}),
    "a row less": ({"train": (TRAIN[0][:8], TRAIN[1][:8])}, {}),
    "rows in another order": ({"train": (TRAIN[0].flip(0), TRAIN[1].flip(0))}, {}),
    "train and test exchanged": ({"train": TEST, "test": TRAIN}, {}),
    "a weight": (
        {"checkpoints": [{**states()[0], "0.weight": one_changed(states()[0]["0.weight"], 3, 1e-9)}, states()[1]]}, {},
    ),
    "a buffer": (
        {"checkpoints": [{**states()[0], "1.running_var": states()[0]["1.running_var"] * 1.001}, states()[1]]}, {},
    ),
    "checkpoints in another order": ({"checkpoints": states()[::-1]}, {}),
    "a checkpoint more": ({"checkpoints": states(3), "learning_rates": None}, {"learning_rates": None}),
    "a learning rate": ({"learning_rates": [0.1, 0.20000001]}, {}),
    "no learning rates": ({"learning_rates": None}, {}),
    "the loss": ({"loss": custom(1.0)}, {}),
    "a number inside the loss": ({"loss": custom(1.0)}, {"loss": custom(2.0)}),
    "the recipe": ({"recipe": Recipe()}, {"recipe": Recipe(weight_decay=0.1)}),
    "a locked split": ({"locked": TEST}, {}),
    "the activation": (
        {"model": lambda: nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))}, {},
    ),
    "an option that repr leaves out": (scaled(1.0), scaled(2.0)),
    "a tensor that is no buffer": (
        scaled(1.0, torch.zeros(5000)), scaled(1.0, one_changed(torch.zeros(5000), 2500, 1)),
    ),
    "a buffer outside the state dict": (scaled(1.0, None, torch.zeros(9)), scaled(1.0, None, torch.ones(9))),
    "the activation inside a transformer layer": (encoder("relu"), encoder("gelu")),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_the_fingerprint_changes_with(name: str) -> None:
    changes, base = DIFFERENT[name]
    assert task(**changes).fingerprint != task(**base).fingerprint
    assert task(**changes).fingerprint == task(**changes).fingerprint


def test_the_fingerprint_does_not_change_otherwise(tmp_path: Path) -> None:
    known = task().fingerprint
    assert task(train=TensorDataset(*TRAIN), test=TensorDataset(*TEST)).fingerprint == known
    assert task(train=(TRAIN[0].numpy(), TRAIN[1].numpy())).fingerprint == known
    assert task(class_names=["a", "b", "c"], train_ids=[f"r{i}" for i in range(9)]).fingerprint == known
    assert task(checkpoints=[dict(reversed(state.items())) for state in states()]).fingerprint == known
    used = task()
    attribute(used, "tracin_cp", [0], run=Run(device="cpu", store=Store(tmp_path)))
    used.predicted("test", torch.arange(4))
    assert used._hashed() == known
    training = made(net, 0).train()
    shown = [
        Task(model, TRAIN, TEST, checkpoints=states(), learning_rates=[0.1, 0.2]) for model in (training, made(net, 7))
    ]
    assert {one.fingerprint for one in shown} == {known}, "mode and weights of the module are not those explained"
    assert task(fingerprint="given").fingerprint == "given"


def test_the_fingerprint_of_every_case_is_the_same_when_made_again() -> None:
    prints = {name: make().fingerprint for name, make in CASES.items()}
    assert {name: make().fingerprint for name, make in CASES.items()} == prints
    assert len(set(prints.values())) == len(prints)


def test_building_a_task_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    Task(lambda: nn.Linear(5, 3), TRAIN, TEST)
    assert torch.equal(torch.get_rng_state(), before)


# -- rows and labels --------------------------------------------------------------------------------------------------


def test_ids_are_found_whatever_holds_them() -> None:
    known = task(train_ids=np.arange(9) * 10, test_ids=["a", "b", "c", "d"])
    assert known.positions(Rows("train", (80, 0, 0))).tolist() == [8, 0, 0]
    assert known.positions(Rows("test", ("d", "a"))).tolist() == [3, 0]
    assert known.ids("train").tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80]


@pytest.mark.parametrize("ids", [(5,), ("80",), (None,), (0, 90)])
def test_an_unknown_id_is_named_with_the_range(ids: tuple) -> None:
    known = task(train_ids=np.arange(9) * 10)
    with pytest.raises(BadInput, match="Unknown row id") as error:
        known.positions(Rows("train", ids))
    assert repr(ids[-1]) in error.value.why and "from 0 to 80" in error.value.why.replace("np.int64(", "").replace(
        ")", ""
    )


def test_a_split_that_is_not_there_is_said() -> None:
    with pytest.raises(BadInput, match="There is no 'locked' split"):
        task().split("locked")
    assert len(task(locked=TEST).split("locked")) == 4


@pytest.mark.parametrize("target", [3, -1])
def test_a_class_that_is_not_there_is_said(target: int) -> None:
    with pytest.raises(BadInput, match="Unknown target label"):
        task().query(Rows("test", (0,)), Measurement("loss", target))


@pytest.mark.parametrize("target", [0, "predicted"])
def test_there_is_no_other_label_without_classes_or_with_several_at_once(target: Any) -> None:
    several = (TEST[0], integers(2, 4, 3, seed=1).double())
    labels = Task(made(net, 0), (TRAIN[0], integers(2, 9, 3, seed=2).double()), several, "bce")
    for known in (CASES["regression"](), CASES["custom_loss"](), labels):
        with pytest.raises(BadInput, match="There is no other label to explain"):
            known.query(Rows("test", (0,)), Measurement("loss", target))


def test_targets_put_in_place() -> None:
    known = task()
    rows = Rows("test", (3, 0))
    batch = known.query(rows, Measurement("loss", 2))
    assert batch.targets.tolist() == [2, 2] and batch.targets.dtype == torch.int64
    predicted = made(net, 1).eval()(TEST[0]).argmax(1)
    assert known.query(rows, Measurement("loss", "predicted")).targets.tolist() == predicted[[3, 0]].tolist()
    assert known.query(rows, Measurement()).targets.tolist() == TEST[1][[3, 0]].tolist()


def test_a_query_keeps_the_precision_of_the_run() -> None:
    batch = task().query(Rows("test", (1,)), Measurement(), torch.float64)
    assert torch.equal(batch.inputs, TEST[0][1:2])


# -- the last layer ---------------------------------------------------------------------------------------------------


def last_layer(build: Callable[[], nn.Module], data: tuple[Any, Tensor] = TEST) -> str | None:
    return Task(made(build, 0), data, data).last_layer


class Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused, self.head = nn.Linear(5, 1), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x).squeeze(1)


def test_the_last_layer_is_the_linear_that_makes_the_output() -> None:
    assert last_layer(net) == "3"
    assert last_layer(lambda: nn.Linear(5, 3)) == ""
    assert last_layer(Squeezed) == "head"
    assert CASES["tied_weights"]().last_layer == "decoder"
    assert last_layer(lambda: nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5))) == "0"


@pytest.mark.parametrize(
    "after", [nn.Softmax(1), nn.LogSoftmax(1), nn.ReLU(), nn.ReLU(inplace=True), nn.BatchNorm1d(3), nn.Hardtanh(-2, 2)]
)
def test_what_comes_after_a_linear_makes_it_not_the_last(after: nn.Module) -> None:
    """One positive row would not tell a ReLU from nothing: more than one is looked at."""
    x = torch.cat([torch.zeros(1, 5), 9 * normal(40, 5, seed=3)])
    build = lambda: nn.Sequential(nn.Linear(5, 3), after)  # noqa: E731
    model = made(build, 0)
    with torch.no_grad():
        model[0].bias.fill_(0.5)
    assert Task(model, (x, integers(3, 41, seed=1)), (x, integers(3, 41, seed=1))).last_layer is None


def test_what_a_task_offers() -> None:
    everything = task(recipe=Recipe()).provides
    for need in Needs:
        if need not in (Needs.NONE, Needs.WORD_EMBEDDING):
            assert need in everything
    assert Needs.WORD_EMBEDDING not in everything and Needs.WORD_EMBEDDING in CASES["transformer"]().provides
    assert Needs.RECIPE not in Task(made(net, 0), TRAIN, TEST, recipe=Recipe()).provides, "a module cannot be made anew"
    assert Needs.LABELS not in CASES["regression"]().provides
    assert Needs.OUTPUTS not in CASES["custom_loss"]().provides
    assert Needs.LAST_LAYER not in CASES["bare_parameters"]().provides
    assert Needs.LEARNING_RATES not in task(learning_rates=None).provides


def test_data_that_the_model_cannot_take_is_an_error_in_words() -> None:
    x, y = normal(4, 7, seed=1), integers(3, 4, seed=2)
    with pytest.raises(BadInput, match="cannot be called with the data: mat1 and mat2"):
        attribute(Task(made(net, 0), (x, y), (x, y)), "grad_dot", [0])
