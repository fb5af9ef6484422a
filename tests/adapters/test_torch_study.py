"""A user's PyTorch model as a study: its scores are those of the same task in memory, whatever form the data has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from influence_core import Recipe, Run, Study, Task, attribute, load_recording, self_influence
from influence_core.adapters.torch_study import Split, saved_torch_study
from influence_core.errors import BadInput, Cancelled, NumericalProblem
from influence_core.study_archive import import_archive, write_archive
from tests import own_models

N_TRAIN, N_TEST = 23, 9
NET = "tests.own_models:net"


def weights(factory: Callable[[], nn.Module], *seeds: int) -> list[dict[str, Tensor]]:
    """Weights of a model from seeds, with running statistics that are not trivial."""
    states = []
    for seed in seeds or (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = factory()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean, module.running_var = torch.randn(3), torch.rand(3) + 0.5
        states.append(model.state_dict())
    return states


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def whole(high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def vectors(dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    return {
        "train": (normal(N_TRAIN, 6, seed=1, dtype=dtype), whole(3, N_TRAIN, seed=2)),
        "test": (normal(N_TEST, 6, seed=3, dtype=dtype), whole(3, N_TEST, seed=4)),
    }


def made(out: Path, **changes: Any) -> Study:
    """The plain study of vectors, with changes."""
    options = {
        "model": NET, **vectors(), "checkpoints": weights(own_models.net), "learning_rates": [0.1, 0.2],
        "out": out / "study", **changes,
    }  # fmt: skip
    return Study.from_torch("mine", **options)


def same_scores(study: Study, task: Task, run: Run | None = None, methods: tuple[str, ...] = ("tracin_cp",)) -> None:
    """Every score and the fitted model agree: exactly in float32, to 1e-12 in float64."""
    run = run or Run()
    limit = 0.0 if run.dtype == torch.float32 else 1e-12
    ids, plain = task.ids("test").tolist(), study.task.ids("test").tolist()
    for method in methods:
        ours = attribute(study, method, plain, run=run).scores
        theirs = attribute(task, method, ids, run=run).scores
        assert ours.shape == (task.n_test, task.n_train) and float(theirs.abs().max()) > 0
        torch.testing.assert_close(ours, theirs, rtol=limit, atol=limit)
        if method != "embedding_similarity":  # has none
            own = self_influence(study, method, run=run), self_influence(task, method, run=run)
            torch.testing.assert_close(*own, rtol=limit, atol=limit)


# -- forms of data ----------------------------------------------------------------------------------------------------


class Pairs(torch.utils.data.Dataset):
    def __init__(self, inputs: Any, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.inputs[index], int(self.targets[index])


class Dicts(Pairs):
    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        row = {name: values[index] for name, values in self.inputs.items()}
        return {**row, "labels": int(self.targets[index]), "origin": f"page {index}"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_are_those_of_the_same_task_in_memory(dtype: torch.dtype, tmp_path: Path) -> None:
    data, states = vectors(dtype), weights(own_models.net)
    study = made(tmp_path, **data)
    task = Task(own_models.net, **data, checkpoints=states, learning_rates=[0.1, 0.2])
    same_scores(study, task, Run(dtype=dtype), ("tracin_cp", "if_exact", "grad_dot", "embedding_similarity"))
    assert study.header.parity == {"rows": N_TEST, "largest_difference": 0.0, "agree": True, "of": "outputs"}
    assert study.header.model == {"reference": NET} and study.header.classes == ("0", "1", "2")
    assert any("no locked split" in note for note in study.header.notes)


def test_outputs_are_those_of_the_users_own_forward_pass(tmp_path: Path) -> None:
    inputs, state = normal(N_TEST, 1, 6, 6, seed=3), weights(own_models.picture_net)
    study = made(
        tmp_path, model=own_models.picture_net, train=(normal(N_TRAIN, 1, 6, 6), whole(3, N_TRAIN)),
        test=(inputs, whole(3, N_TEST)), checkpoints=state,
    )  # fmt: skip
    model = own_models.picture_net()
    model.load_state_dict(state[-1])
    with torch.no_grad():
        expected = model.eval()(inputs)
    assert torch.equal(study.task.outputs_of("test"), expected)
    assert study.header.modality == "image"


def test_any_form_of_the_data_gives_the_same_rows(tmp_path: Path) -> None:
    (x, y), (xt, yt) = vectors()["train"], vectors()["test"]
    forms = {
        "arrays": ((x.numpy(), y.numpy()), (xt.numpy(), yt.numpy())),
        "pairs": (Pairs(x, y), Pairs(xt, yt)),
        "mapping": ({"x": x, "label": y}, {"x": xt, "label": yt}),
        "dicts": (Dicts({"x": x}, y), Dicts({"x": xt}, yt)),
        "one-hot": ((x, F.one_hot(y, 3).float()), (xt, F.one_hot(yt, 3).float())),
        "a column of targets": ((x, y[:, None]), (xt, yt[:, None])),
    }
    plain = made(tmp_path / "plain").task
    for name, (train, test) in forms.items():
        study = made(tmp_path / name, train=train, test=test)
        for split in ("train", "test"):
            mine, theirs = study.task.split(split).raw(slice(None)), plain.split(split).raw(slice(None))
            assert torch.equal(mine.inputs, theirs.inputs) and torch.equal(mine.targets, theirs.targets), name
    assert pq.read_table(tmp_path / "dicts/study/test.parquet")["origin"].to_pylist()[1] == "page 1"
    assert "One-hot labels" in Study(tmp_path / "one-hot/study").header.notes[0]


def texts(n: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    ids = whole(20, n, 5, seed=seed)
    return {"input_ids": ids, "attention_mask": (torch.arange(5) < 2 + ids[:, :1] % 4).long()}, whole(2, n, seed=seed)


def test_texts_as_tokens_are_called_by_keywords(tmp_path: Path) -> None:
    (x, y), (xt, yt) = texts(N_TRAIN, 1), texts(N_TEST, 2)
    states = weights(own_models.Reader)
    task = Task(own_models.Reader, (x, y), (xt, yt), checkpoints=states, learning_rates=[0.1, 0.2])
    for name, train, test in (("tensors", (x, y), (xt, yt)), ("dicts", Dicts(x, y), Dicts(xt, yt))):
        study = made(tmp_path / name, model=own_models.Reader, train=train, test=test, checkpoints=states)
        assert study.task.split("test").raw(slice(0, 2)).inputs["input_ids"].dtype == torch.int64
        same_scores(study, task)


def test_a_split_of_the_datasets_library(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    parts, states = {}, weights(own_models.Reader)
    for split, (x, y) in (("train", texts(N_TRAIN, 1)), ("test", texts(N_TEST, 2))):
        columns = {name: values.tolist() for name, values in x.items()}
        more = {"text": [f"text {i}" for i in range(len(y))], "stars": list(range(len(y))), "other": [[1, 2]] * len(y)}
        parts[split] = datasets.Dataset.from_dict({**columns, **more, "label": y.tolist()})
    study = made(tmp_path, model=own_models.Reader, **parts, checkpoints=states)
    task = Task(own_models.Reader, texts(N_TRAIN, 1), texts(N_TEST, 2), checkpoints=states, learning_rates=[0.1, 0.2])
    same_scores(study, task)
    assert study.header.modality == "text"
    names = pq.read_schema(tmp_path / "study/train.parquet").names
    assert names == ["id", "label", "text", "stars", "input.input_ids", "input.attention_mask"]
    shuffled = parts["test"].shuffle(seed=1).select(range(4))
    again = made(tmp_path / "2", model=own_models.Reader, train=parts["train"], test=shuffled, checkpoints=states)
    assert again.column("test", "text").tolist() == shuffled["text"][:]
    assert torch.equal(
        again.task.split("test").raw(slice(None)).inputs["input_ids"], torch.tensor(shuffled["input_ids"][:])
    )


def test_two_tensors_are_called_by_position(tmp_path: Path) -> None:
    data = {
        name: ((normal(n, 3, seed=n), normal(n, 2, seed=n + 1)), whole(3, n))
        for name, n in (("train", N_TRAIN), ("test", N_TEST))
    }
    states = weights(own_models.Pair)
    study = made(tmp_path, model=own_models.Pair, **data, checkpoints=states)
    same_scores(study, Task(own_models.Pair, **data, checkpoints=states, learning_rates=[0.1, 0.2]))


@pytest.mark.parametrize(("factory", "column"), [(own_models.logit, True), (own_models.Logit, False)])
def test_one_logit_and_floating_targets(factory: Callable[[], nn.Module], column: bool, tmp_path: Path) -> None:
    data = {}
    for name, n in (("train", N_TRAIN), ("test", N_TEST)):
        y = whole(2, n, seed=n).float()
        data[name] = (normal(n, 4, seed=n), y[:, None] if column else y)
    states = weights(factory)
    study = made(
        tmp_path, model=factory, **data, loss=nn.BCEWithLogitsLoss(), checkpoints=states, class_names=["no", "yes"]
    )
    assert study.header.loss == "bce" and set(study.column("train", "label")) == {"no", "yes"}
    same_scores(study, Task(factory, **data, loss="bce", checkpoints=states, learning_rates=[0.1, 0.2]))


@pytest.mark.parametrize("loss", ["mse", nn.MSELoss(), F.mse_loss])
def test_a_regression(loss: Any, tmp_path: Path) -> None:
    data = {name: (normal(n, 4, seed=n), normal(n, 1, seed=n)) for name, n in (("train", N_TRAIN), ("test", N_TEST))}
    states = weights(own_models.number)
    study = made(tmp_path, model=own_models.number, **data, loss=loss, checkpoints=states)
    assert study.header.task == "regression" and study.header.classes == ()
    same_scores(study, Task(own_models.number, **data, loss="mse", checkpoints=states, learning_rates=[0.1, 0.2]))


def test_ids_shown_columns_locked_rows_and_words_are_kept(tmp_path: Path) -> None:
    locked = (normal(4, 6, seed=9), whole(3, 4, seed=9))
    frame = pd.DataFrame(
        {
            "text": [f"row {i}" for i in range(N_TRAIN + N_TEST + 4)], "id": range(36), "input.x": 1.5,
            "kind": pd.Categorical(["a"] * 36), "lists": [[1]] * 36,
        }
    )  # fmt: skip
    study = made(
        tmp_path, locked=locked, train_ids=[f"t{i}" for i in range(N_TRAIN)], test_ids=np.arange(100, 100 + N_TEST),
        locked_ids=torch.tensor([7, 6, 5, 4]), show=frame, class_names=["a", "b", "c"], title="Mine", description="So.",
        recipe={"optimizer": "adam", "epochs": 3, "batch_size": 8}, gradient_accumulation=4,
    )  # fmt: skip
    header = study.header
    assert (header.title, header.description, header.modality) == ("Mine", "So.", "text")
    assert study.splits == ("train", "test", "locked") and study.task.ids("locked").tolist() == [7, 6, 5, 4]
    assert study.task.ids("train")[3] == "t3" and study.task.ids("test")[1] == 101
    assert study.column("test", "text")[0] == f"row {N_TRAIN}" and study.column("locked", "id (given)")[0] == 32
    assert "input.x (given)" in study.column_names("train") and "lists" not in study.column_names("train")
    assert header.recipe is not None and header.recipe.batch_size == 32 and header.recipe.optimizer == "adam"
    assert any("4 batches were accumulated" in note for note in header.notes)
    assert any("'lists'" in note for note in header.notes) and not any("locked" in note for note in header.notes)


def test_frames_can_be_given_for_each_split(tmp_path: Path) -> None:
    show = {"test": pa.table({"page": list(range(N_TEST))})}
    study = made(tmp_path, show=show)
    assert study.column("test", "page").tolist() == list(range(N_TEST)) and "page" not in study.column_names("train")
    for wrong in ({"test": pa.table({"page": [1]})}, pa.table({"page": [1]}), 5):
        with pytest.raises(BadInput, match="What is shown"):
            made(tmp_path / "x", show=wrong)


# -- checkpoints ------------------------------------------------------------------------------------------------------


def test_checkpoints_come_from_files_of_either_kind(tmp_path: Path) -> None:
    first, last = weights(own_models.net)
    torch.save(first, tmp_path / "first.pt")
    save_file(last, tmp_path / "last.safetensors")
    study = made(tmp_path, checkpoints=[str(tmp_path / "first.pt"), tmp_path / "last.safetensors"])
    assert [entry["file"] for entry in study.header.checkpoints] == [
        "checkpoints/0000.safetensors",
        "checkpoints/0001.safetensors",
    ]
    for index, state in enumerate((first, last)):
        kept = load_file(tmp_path / f"study/checkpoints/{index:04d}.safetensors")
        assert kept.keys() == state.keys() and all(torch.equal(kept[name], state[name]) for name in state)
    assert (tmp_path / "first.pt").exists() and (tmp_path / "last.safetensors").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_checkpoints_are_kept_as_float32_with_a_note(dtype: torch.dtype, tmp_path: Path) -> None:
    states = [{name: value.to(dtype) for name, value in state.items()} for state in weights(own_models.net)]
    study = made(tmp_path, checkpoints=states)
    assert any(str(dtype).removeprefix("torch.") in note and "float32" in note for note in study.header.notes)
    wide = [{name: value.float() for name, value in state.items()} for state in states]
    same_scores(study, Task(own_models.net, **vectors(), checkpoints=wide, learning_rates=[0.1, 0.2]))
    model = own_models.net().to(dtype)
    model.load_state_dict(states[-1])
    with torch.no_grad():
        said = model.eval()(vectors()["test"][0].to(dtype))
    kept = made(tmp_path / "2", checkpoints=states, predictions=said).header.parity
    assert kept["agree"] and 0 < kept["largest_difference"] < 0.05


def test_shared_weights_and_wrapped_names(tmp_path: Path) -> None:
    states = weights(own_models.Tied)
    study = made(tmp_path, model=own_models.Tied, checkpoints=states)
    same_scores(study, Task(own_models.Tied, **vectors(), checkpoints=states, learning_rates=[0.1, 0.2]))
    wrapped = [{f"module.{name}": value for name, value in state.items()} for state in weights(own_models.net)]
    again = made(tmp_path / "wrapped", checkpoints=wrapped)
    assert any("'module.'" in note for note in again.header.notes)
    assert torch.equal(again.task.outputs_of("test"), made(tmp_path / "plain").task.outputs_of("test"))


def test_without_learning_rates_methods_that_need_them_say_so(tmp_path: Path) -> None:
    from influence_core.errors import Unavailable

    study = made(tmp_path, learning_rates=None)
    assert study.task.learning_rates is None
    with pytest.raises(Unavailable, match="learning rate"):
        attribute(study, "tracin_cp", [0])
    assert attribute(study, "grad_dot", [0]).scores.shape == (1, N_TRAIN)


class Payload:
    """What a pickle would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_in_a_checkpoint_is_refused_and_does_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    torch.save({**weights(own_models.net)[0], "x": Payload(touched)}, tmp_path / "bad.pt")
    with pytest.raises(BadInput, match="Checkpoint 0 cannot be read"):
        made(tmp_path, checkpoints=[tmp_path / "bad.pt"], learning_rates=None)
    assert not touched.exists() and not (tmp_path / "study").exists()
    torch.load(tmp_path / "bad.pt", weights_only=False)
    assert touched.exists()  # it would have


def test_a_checkpoint_outside_the_study_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path).path
    (path / "checkpoints/0001.safetensors").rename(tmp_path / "out.safetensors")
    text = (path / "study.toml").read_text()
    (path / "study.toml").write_text(text.replace("checkpoints/0001.safetensors", "../out.safetensors"))
    with pytest.raises(BadInput, match="outside the study"):
        _ = Study(path).task


def broken(value: float) -> list[dict[str, Tensor]]:
    state = weights(own_models.net)[0]
    state["1.bias"][0] = value
    return [state]


# -- refusals ---------------------------------------------------------------------------------------------------------

X, Y = vectors()["train"]
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "class weights in the loss": ({"loss": nn.CrossEntropyLoss(weight=torch.ones(3))}, "Class weights"),
    "smoothing in the loss": ({"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}, "Label smoothing"),
    "positive weight": ({"loss": nn.BCEWithLogitsLoss(pos_weight=torch.ones(1))}, "Class weights"),
    "log-probabilities": ({"loss": nn.NLLLoss()}, "Use 'cross_entropy'"),
    "probabilities": ({"loss": nn.BCELoss()}, "logits that methods read"),
    "a loss of one's own": ({"loss": lambda model, batch: 0}, r"a loss of your own .* Task\(\.\.\., loss=f\)"),
    "a loss by reference": ({"loss": "tests.own_models:net"}, "a loss of your own"),
    "an unknown loss": ({"loss": nn.L1Loss()}, "L1Loss"),
    "class weights": ({"class_weight": [1, 2, 3]}, "'class_weight' is not supported"),
    "sample weights": ({"sample_weights": torch.ones(N_TRAIN)}, "'sample_weights' is not supported"),
    "label smoothing": ({"label_smoothing": 0.1}, "'label_smoothing' is not supported"),
    "a slip of the pen": ({"checkpoint": []}, "'checkpoint' was given"),
    "three parts in a row": ({"train": (X, Y, torch.ones(N_TRAIN))}, "sample weights"),
    "several labels a row": ({"train": (X, torch.ones(N_TRAIN, 3))}, "multi-label.*a study for each label"),
    "soft labels": ({"train": (X, torch.full((N_TRAIN, 3), 1 / 3))}, "soft labels"),
    "soft numbers": ({"train": (X, Y + 0.1)}, "label smoothing"),
    "rows to ignore": ({"train": (X, Y - 100)}, "rows to ignore"),
    "an unknown class": ({"train": (X, Y + 1)}, "One is 3"),
    "several numbers": ({"loss": "mse", "train": (X, normal(N_TRAIN, 3))}, "a study for each number"),
    "two classes, one loss": ({"loss": "bce"}, "multi-label"),
    "one output": (
        {
            "model": "tests.own_models:number", "train": (X[:, :4], Y), "test": (X[:, :4], Y),
            "checkpoints": weights(own_models.number),
        },
        "loss='bce'",
    ),
    "names": ({"class_names": ["a", "b"]}, "2 different names for 3"),
    "no checkpoint": ({"checkpoints": [], "learning_rates": None}, "no trained model"),
    "one checkpoint, not a list": ({"checkpoints": weights(own_models.net)[0]}, r"Use \[checkpoint\]"),
    "another model": ({"checkpoints": weights(own_models.logit)}, "does not fit the model: it lacks '1.bias'"),
    "another width": (
        {"checkpoints": [{**weights(own_models.net)[0], "1.bias": torch.zeros(7)}], "learning_rates": None},
        r"'1.bias' is \[7\], in the model \[5\]",
    ),
    "rates": ({"learning_rates": [0.1]}, "2 checkpoints and 1 learning rates"),
    "a negative rate": ({"learning_rates": [0.1, -1]}, "learning rate"),
    "rows without targets": ({"train": (X, Y[:5])}, "do not match"),
    "no rows": ({"test": (X[:0], Y[:0])}, "empty"),
    "NaN": ({"test": (torch.full((2, 6), torch.nan), Y[:2])}, "test row 0 holds a NaN"),
    "rows that are not alike": ({"test": Pairs([torch.zeros(6), torch.zeros(7)], Y[:2])}, "not alike.*Pad texts"),
    "test rows of another shape": ({"test": (X[:, :5], Y)}, "cannot be called|not alike"),
    "a loader": ({"train": torch.utils.data.DataLoader(Pairs(X, Y))}, r"loader\.dataset"),
    "unnamed targets": ({"train": {"x": X, "z": Y}}, "not named"),
    "names that forward does not take": (
        {"model": "tests.own_models:Reader", "checkpoints": weights(own_models.Reader), "train": {"a": X, "y": Y}},
        "forward takes input_ids, attention_mask",
    ),
    "ids twice": ({"train_ids": [1] * N_TRAIN}, "not unique"),
    "too few ids": ({"test_ids": [1, 2]}, "2 ids for 9 rows"),
    "odd ids": ({"test_ids": [1.5] * N_TEST}, "cannot be used"),
    "a path as a name": ({"out": None, "name": "../x"}, "without slashes"),
    "a module": ({"model": own_models.net()}, "in memory"),
    "a function on the spot": ({"model": lambda: own_models.net()}, "module of its own"),
    "predictions of others": ({"predictions": torch.zeros(4)}, "4 for 9 test rows"),
    "predictions in another form": ({"predictions": torch.zeros(N_TEST, 7)}, "cannot be compared"),
    "a recipe": ({"recipe": 3}, "recipe cannot be used"),
    "an accumulation": ({"gradient_accumulation": 0}, "accumulated"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_is_refused_with_the_reason_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    changes, message = REFUSED[name]
    options = {
        "name": "mine", "model": NET, **vectors(), "checkpoints": weights(own_models.net),
        "learning_rates": [0.1, 0.2], "out": tmp_path / "study", **changes,
    }  # fmt: skip
    if changes.get("checkpoints") == [] or len(options["checkpoints"]) == 1:
        options["learning_rates"] = None
    with pytest.raises(BadInput, match=message) as caught:
        Study.from_torch(**options)
    assert caught.value.fix and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_refused(value: float, tmp_path: Path) -> None:
    with pytest.raises(NumericalProblem, match="Checkpoint 0 is broken"):
        made(tmp_path, checkpoints=broken(value), learning_rates=None)


def test_a_taken_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    study = made(tmp_path)
    before = study.fingerprint
    with pytest.raises(BadInput, match="taken"):
        made(tmp_path, train=None)
    assert Study(study.path).fingerprint == before


def test_cancelling_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        made(tmp_path, run=Run(cancel=lambda: True))
    assert list(tmp_path.iterdir()) == []


# -- parity -----------------------------------------------------------------------------------------------------------


def own_outputs() -> Tensor:
    model = own_models.net()
    model.load_state_dict(weights(own_models.net)[-1])
    with torch.no_grad():
        return model(vectors()["test"][0])


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (own_outputs, "outputs"),
        (lambda: own_outputs().numpy().astype(np.float64), "outputs"),
        (lambda: own_outputs().softmax(1), "probabilities"),
        (lambda: own_outputs().argmax(1), "classes"),
    ],
)
def test_the_users_predictions_are_compared_and_the_result_is_kept(
    given: Callable[[], Any], kind: str, tmp_path: Path
) -> None:
    study = made(tmp_path, predictions=given())
    assert study.header.parity["of"] == kind and study.header.parity["agree"]
    assert study.header.parity["rows"] == N_TEST and study.header.parity["largest_difference"] < 1e-6


@pytest.mark.parametrize(
    "given",
    [
        lambda: own_outputs() + 1e-3,
        lambda: own_outputs().flip(0),
        lambda: own_outputs().flip(0).softmax(1),
        lambda: (own_outputs().argmax(1) + 1) % 3,
        lambda: own_outputs() * torch.nan,
    ],
)
def test_predictions_that_differ_are_refused(given: Callable[[], Any], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"not predict what your model does.*model\.eval\(\)|NaN"):
        made(tmp_path, predictions=given())
    assert list(tmp_path.iterdir()) == []


def test_predictions_of_train_mode_are_refused(tmp_path: Path) -> None:
    data = {n: (normal(k, 1, 6, 6, seed=k), whole(3, k)) for n, k in (("train", N_TRAIN), ("test", N_TEST))}
    states = weights(own_models.picture_net)
    model = own_models.picture_net()
    model.load_state_dict(states[-1])
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        said = model.train()(data["test"][0])
    with pytest.raises(BadInput, match="train mode"):
        made(tmp_path, model=own_models.picture_net, **data, checkpoints=states, predictions=said)


def test_large_numbers_of_a_regression_may_round(tmp_path: Path) -> None:
    data = {n: (normal(k, 4, seed=k), 1e6 + normal(k, seed=k)) for n, k in (("train", N_TRAIN), ("test", N_TEST))}
    state = {"weight": normal(1, 4, seed=5), "bias": torch.tensor([1e6])}
    said = data["test"][0].double() @ state["weight"][0].double() + 1e6
    study = made(
        tmp_path, model=own_models.number, **data, loss="mse", checkpoints=[state], learning_rates=None,
        predictions=said,
    )  # fmt: skip
    assert study.header.parity["agree"]


def test_random_rows_are_noticed(tmp_path: Path) -> None:
    class Augmented(Pairs):
        def __getitem__(self, index: int) -> tuple[Any, Any]:
            return self.inputs[index] + torch.rand(6), int(self.targets[index])

    with torch.random.fork_rng(devices=[]), pytest.raises(BadInput, match="random augmentation"):
        made(tmp_path, test=Augmented(*vectors()["test"]))


# -- what adapters build on -------------------------------------------------------------------------------------------


def test_a_built_in_model_from_arrays(tmp_path: Path) -> None:
    state = weights(own_models.net, 0)
    model = {"architecture": "mlp", "options": {"n_inputs": 6, "n_classes": 3, "hidden": [5]}}
    data = {split: Split(*rows) for split, rows in vectors().items()}
    asked: list[int] = []

    def theirs(split: str, positions: Tensor) -> Tensor:
        asked.extend(positions.tolist())
        net = own_models.net()
        net.load_state_dict(state[0])
        with torch.no_grad():
            return net(vectors()[split][0][positions])

    study = saved_torch_study(
        tmp_path / "s", name="s", model=model, splits=data, loss="cross_entropy", checkpoints=state,
        parity_reference=theirs, notes=["So it is."], facts=[{"step": 7, "epoch": 1.5}],
    )  # fmt: skip
    assert asked == list(range(N_TEST)) and study.header.notes[0] == "So it is."
    assert study.header.checkpoints == ({"file": "checkpoints/0000.safetensors", "step": 7, "epoch": 1.5},)
    with pytest.raises(BadInput, match="no 'test' split"):
        saved_torch_study(
            tmp_path / "t", name="t", model=model, splits={"train": data["train"]}, loss="mse", checkpoints=state
        )  # fmt: skip


def test_at_most_64_rows_are_compared_evenly_spread(tmp_path: Path) -> None:
    study = made(tmp_path, test=(normal(200, 6), whole(3, 200)))
    assert study.header.parity["rows"] == 64


def test_rows_are_written_and_read_in_bounded_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("influence_core.encoder.base._BYTES_AT_ONCE", 5 * 6 * 4)
    study = made(tmp_path)
    assert pq.ParquetFile(tmp_path / "study/train.parquet").metadata.num_row_groups == 5
    assert torch.equal(study.task.split("train").raw(slice(None)).inputs, vectors()["train"][0])


def test_a_changed_class_is_another_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = made(tmp_path)
    assert Study(study.path).fingerprint == study.fingerprint
    monkeypatch.setattr(
        own_models, "net", lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    )
    assert Study(study.path).fingerprint != study.fingerprint


def test_the_users_module_and_the_random_state_are_left_alone(tmp_path: Path) -> None:
    states = weights(own_models.net)
    kept = [{name: value.clone() for name, value in state.items()} for state in states]
    before = torch.random.get_rng_state()
    made(tmp_path, checkpoints=states)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a[name], b[name]) for a, b in zip(states, kept, strict=True) for name in a)


def test_a_recording_gives_checkpoints_rates_and_trajectory(tmp_path: Path) -> None:
    from influence_core.adapters.recorder import Recorder

    recorded = tmp_path / "recorded"
    model, (x, y) = own_models.net(), vectors()["train"]
    model.load_state_dict(weights(own_models.net)[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(recorded, model, optimizer, every=2) as recorder:
        for _ in range(4):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            recorder.step(list(range(N_TRAIN)))
    study = made(tmp_path, checkpoints=None, learning_rates=None, recording=recorded)
    assert [entry["step"] for entry in study.header.checkpoints][-1] == 4
    assert study.task.learning_rates is not None and set(study.task.learning_rates) == {0.1}
    assert pq.read_table(study.path / "trajectory.parquet")["step"].to_pylist()[-1] in (3, 4)
    with torch.no_grad():
        assert torch.equal(study.task.outputs_of("test"), model(vectors()["test"][0]))
    with pytest.raises(BadInput, match="given twice"):
        made(tmp_path / "2", recording=recorded)
    own = load_recording(recorded)
    task = Task(
        own_models.net, **vectors(), checkpoints=own.checkpoints, learning_rates=own.learning_rates,
        recorded=own.training,
    )  # fmt: skip
    methods = ("magic", "sgd_influence", "hydra", "tracin_ideal", "source")
    same_scores(study, task, methods=methods)
    expected = attribute(study, "magic", [0, 3]).scores
    there = import_archive(write_archive(study.path, tmp_path / "study.zip", Run()), tmp_path / "there", Run())
    assert there.task.recorded is not None and there.task.recorded.folder == there.path
    torch.testing.assert_close(attribute(there, "magic", [0, 3]).scores, expected, rtol=0, atol=0)
    (there.path / "recording.json").write_text("[]")
    with pytest.raises(BadInput, match="Restore the file from a copy, or delete it"):
        Study(there.path).task  # noqa: B018
    (there.path / "recording.json").unlink()
    assert Study(there.path).task.recorded is None


def test_recipes_are_of_the_engine(tmp_path: Path) -> None:
    study = made(tmp_path, recipe=Recipe(epochs=2, batch_size=8))
    assert study.header.recipe == Recipe(epochs=2, batch_size=8)
    assert json.loads((study.path / "encoder.json").read_text())["kind"] == "tensors"
