"""A Trainer's folder as a study: built offline from a tiny BERT, with the same predictions and exact scores."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from influence_core import attribute
from influence_core.adapters.hf_trainer import study_from_trainer
from influence_core.adapters.recording import load_recording
from influence_core.errors import BadInput
from influence_core.pretrained import (
    _hide_broken_torchvision,
    checked_configuration,
    configured_model,
    transformers_library,
)
from influence_core.study import Study

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"word{i}" for i in range(96))]
MOODS = ["angry", "calm", "glad"]
transformers = transformers_library()
needs_trainer = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="transformers.Trainer itself needs the package accelerate"
)


def bert(**options: Any) -> Any:
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=24, id2label=dict(enumerate(MOODS)), label2id={m: i for i, m in enumerate(MOODS)},
        **options,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.AutoModelForSequenceClassification.from_config(config)


def rows(n: int, seed: int, **more: Any) -> list[dict[str, Any]]:
    """Rows of different lengths, their text, and a label that the first word decides."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        tokens = [1, *chance.integers(4, len(WORDS), chance.integers(3, 12)).tolist(), 2]
        text = " ".join(WORDS[token] for token in tokens[1:-1])
        found.append(
            {
                "text": text, "input_ids": tokens, "attention_mask": [1] * len(tokens),
                "token_type_ids": [0] * len(tokens), "label": tokens[1] % 3, **more,
            }
        )  # fmt: skip
    return found


TRAIN, TEST = rows(30, 1), rows(11, 2)
RATES = {1: 0.04, 2: 0.03, 3: 0.02, 4: 0.01}


def collated(some: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad a batch as the library's own collator does."""
    longest = max(len(row["input_ids"]) for row in some)
    batch = {
        name: torch.tensor([row[name] + [0] * (longest - len(row[name])) for row in some])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    return {**batch, "labels": torch.tensor([row["label"] for row in some])}


def train_by_hand(folder: Path, model: Any, *, log: tuple[int, ...] = (1, 2, 3, 4), train: Any = TRAIN) -> Any:
    """Write the folder with the library's own classes, as the Trainer does; a checkpoint every two steps."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    state = transformers.TrainerState(max_steps=4)
    model.train()
    for step, rate in RATES.items():
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        model(**collated(train[:16] if step % 2 else train[16:])).loss.backward()
        optimizer.step()
        state.global_step, state.epoch = step, step / 2
        if step in log:
            state.log_history.append({"epoch": step / 2, "learning_rate": rate, "loss": 1.0, "step": step})
        if step % 2 == 0:
            place = folder / f"checkpoint-{step}"
            model.save_pretrained(place)
            state.save_to_json(str(place / "trainer_state.json"))
    return model.eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("trainer")
    return folder, train_by_hand(folder, bert())


@pytest.fixture(scope="module")
def study(trained: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study_from_trainer("moods", trained[0], train=TRAIN, test=TEST, out=tmp_path_factory.mktemp("s") / "moods")


def test_the_study_predicts_what_the_model_does(study: Study, trained: tuple[Path, Any]) -> None:
    with torch.no_grad():
        expected = trained[1](**collated(TEST)).logits
    torch.testing.assert_close(study.task.outputs_of("test"), expected, rtol=0, atol=1e-5)
    assert list(study.header.classes) == MOODS and study.header.loss == "cross_entropy"
    assert study.column("test", "text").tolist() == [row["text"] for row in TEST]
    assert study.label_index("test").tolist() == [row["label"] for row in TEST]


def test_what_is_kept_of_the_training(study: Study) -> None:
    entries = study.header.checkpoints
    assert [entry["step"] for entry in entries] == [2, 4] and [entry["epoch"] for entry in entries] == [1.0, 2.0]
    assert [entry["learning_rate"] for entry in entries] == [0.03, 0.01]
    text = (study.path / "study.toml").read_text()
    assert "logged at the checkpoints' steps" in text and "training_args.bin is never opened" in text
    assert "agree = true" in text


def brute_force(trained: tuple[Path, Any], step: int, test: dict[str, Any], train: dict[str, Any]) -> float:
    """Return the dot product of two rows' loss gradients in float64, on the library's own model."""
    model = bert(attn_implementation="eager")
    model.load_state_dict(load_file(trained[0] / f"checkpoint-{step}" / "model.safetensors"))
    model = model.double().eval()

    def gradient(row: dict[str, Any]) -> torch.Tensor:
        batch = collated([row])
        loss = nn.functional.cross_entropy(
            model(**{k: v for k, v in batch.items() if k != "labels"}).logits, batch["labels"]
        )
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    return float(gradient(test) @ gradient(train))


def test_scores_are_those_of_a_plain_loop(study: Study, trained: tuple[Path, Any]) -> None:
    pairs = [(0, 0), (0, 7), (4, 29)]
    dot = attribute(study, "grad_dot", test=[0, 4]).scores
    tracin = attribute(study, "tracin_cp", test=[0, 4]).scores
    assert dot.shape == (2, len(TRAIN))
    for t, i in pairs:
        last = brute_force(trained, 4, TEST[t], TRAIN[i])
        both = 0.03 * brute_force(trained, 2, TEST[t], TRAIN[i]) + 0.01 * last
        assert float(dot[[0, 4].index(t), i]) == pytest.approx(last, rel=1e-4, abs=1e-5)
        assert float(tracin[[0, 4].index(t), i]) == pytest.approx(both, rel=1e-4, abs=1e-7)


def test_scores_of_the_last_layer_alone(study: Study, trained: tuple[Path, Any]) -> None:
    found = attribute(study, "grad_dot", test=[3], config={"layers": ("classifier",)}).scores
    model = trained[1].double()
    features = {}
    hook = model.classifier.register_forward_pre_hook(lambda _, inputs: features.update(h=inputs[0]))
    for name, some in (("test", [TEST[3]]), ("train", TRAIN)):
        batch = collated(some)
        with torch.no_grad():
            error = model(**batch).logits.softmax(-1) - nn.functional.one_hot(batch["labels"], 3)
        features[name] = (error, torch.cat([features["h"], torch.ones(len(some), 1)], 1))
    hook.remove()
    trained[1].float()
    expected = (features["test"][0] @ features["train"][0].T) * (features["test"][1] @ features["train"][1].T)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def test_a_copied_folder_opens_without_the_trainer(study: Study, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(study.path, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("cache"))
    again = Study.open(tmp_path / "elsewhere")
    torch.testing.assert_close(again.task.outputs_of("test"), study.task.outputs_of("test"), rtol=0, atol=0)
    assert again.header.model["architecture"] == "transformers"


def test_pickles_of_the_folder_are_never_opened(tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    folder = tmp_path / "trainer"
    train_by_hand(folder, bert())
    for place in (folder, *folder.glob("checkpoint-*")):
        for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
            (place / name).write_bytes(pickle.dumps(Bomb()))
    study_from_trainer("moods", folder, train=TRAIN, test=TEST, out=tmp_path / "study")
    assert not (tmp_path / "ran").exists()
    (folder / "checkpoint-4" / "model.safetensors").unlink()
    (folder / "checkpoint-4" / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadInput, match="Checkpoint 1 cannot be read"):
        study_from_trainer("moods", folder, train=TRAIN, test=TEST, out=tmp_path / "other")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "other").exists()


def test_weights_as_bin_as_shards_and_a_single_saved_model(tmp_path: Path) -> None:
    folder = tmp_path / "trainer"
    model = train_by_hand(folder, bert())
    state = load_file(folder / "checkpoint-2" / "model.safetensors")
    (folder / "checkpoint-2" / "model.safetensors").unlink()
    torch.save(state, folder / "checkpoint-2" / "pytorch_model.bin")
    last = folder / "checkpoint-4"
    state = load_file(last / "model.safetensors")
    (last / "model.safetensors").unlink()
    halves = [dict(list(state.items())[part::2]) for part in (0, 1)]
    names = [f"model-0000{part + 1}-of-00002.safetensors" for part in (0, 1)]
    for name, half in zip(names, halves, strict=True):
        save_file(half, last / name, metadata={"format": "pt"})
    where = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    (last / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    with torch.no_grad():
        expected = model(**collated(TEST)).logits
    study = study_from_trainer("moods", folder, train=TRAIN, test=TEST, out=tmp_path / "a")
    torch.testing.assert_close(study.task.outputs_of("test"), expected, rtol=0, atol=1e-5)
    assert study.task.n_checkpoints == 2

    model.save_pretrained(tmp_path / "saved")
    study = study_from_trainer("moods", tmp_path / "saved", train=TRAIN, test=TEST, out=tmp_path / "b")
    torch.testing.assert_close(study.task.outputs_of("test"), expected, rtol=0, atol=1e-5)
    assert study.task.learning_rates is None
    assert "are unavailable; give learning_rates" in (study.path / "study.toml").read_text()
    study = study_from_trainer(
        "moods", tmp_path / "saved", train=TRAIN, test=TEST, out=tmp_path / "c", learning_rates=[0.5]
    )
    assert study.task.learning_rates == (0.5,)


def test_rates_between_logged_steps_lie_on_the_line(tmp_path: Path) -> None:
    train_by_hand(tmp_path / "trainer", bert(), log=(1, 3))
    study = study_from_trainer("moods", tmp_path / "trainer", train=TRAIN, test=TEST, out=tmp_path / "s")
    assert study.task.learning_rates == pytest.approx((0.03, 0.02), rel=1e-12)
    assert "at step 2, 4 none was logged" in (study.path / "study.toml").read_text()


def test_datasets_with_classes_ids_and_a_shown_column(trained: tuple[Path, Any], tmp_path: Path) -> None:
    import datasets

    features = {"input_ids", "attention_mask", "label"}

    def made(some: list[dict[str, Any]], start: int) -> Any:
        table = [{key: value for key, value in row.items() if key in features} for row in some]
        extra = [{"id": f"r{start + i}", "sentence": row["text"], "length": 3} for i, row in enumerate(some)]
        made = datasets.Dataset.from_list([{**a, **b} for a, b in zip(table, extra, strict=True)])
        return made.cast_column("label", datasets.ClassLabel(names=["a", "b", "c"])).with_format(
            "torch", ["label"], True
        )

    study = study_from_trainer("moods", trained[0], train=made(TRAIN, 0), test=made(TEST, 50), out=tmp_path / "s")
    assert study.task.ids("test").tolist() == [f"r{50 + i}" for i in range(len(TEST))]
    assert study.column("test", "text").tolist() == [row["text"] for row in TEST]
    assert study.column("test", "length").tolist() == [3] * len(TEST)
    assert list(study.header.classes) == MOODS
    with torch.no_grad():
        expected = trained[1](**collated(TEST)).logits
    torch.testing.assert_close(study.task.outputs_of("test"), expected, rtol=0, atol=1e-5)
    only = study_from_trainer(
        "moods",
        trained[0],
        train=made(TRAIN, 0),
        test=made(TEST, 50),
        out=tmp_path / "t",
        show="length",
        class_names="xyz",
    )
    names = pq.read_schema(only.path / "test.parquet").names
    assert "length" in names and "text" not in names and list(only.header.classes) == ["x", "y", "z"]


def test_padding_without_a_mask_gets_one(trained: tuple[Path, Any], tmp_path: Path) -> None:
    bare = [[{k: row[k] for k in ("input_ids", "label")} for row in some] for some in (TRAIN, TEST)]
    study = study_from_trainer("moods", trained[0], train=bare[0], test=bare[1], locked=bare[1][:4], out=tmp_path / "s")
    with torch.no_grad():
        expected = trained[1](**collated(TEST)).logits
    torch.testing.assert_close(study.task.outputs_of("test"), expected, rtol=0, atol=1e-5)
    assert len(study.task.ids("locked")) == 4


def test_tokens_are_shown_as_text_where_a_tokenizer_lies_beside(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    train_by_hand(tmp_path / "trainer", bert())
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(WORDS[:4])
    tokenizer.save(str(tmp_path / "trainer" / "checkpoint-4" / "tokenizer.json"))
    bare = [[{k: v for k, v in row.items() if k != "text"} for row in some] for some in (TRAIN, TEST)]
    study = study_from_trainer("moods", tmp_path / "trainer", train=bare[0], test=bare[1], out=tmp_path / "s")
    assert study.column("test", "text").tolist() == [row["text"] for row in TEST]


def test_a_regression(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=1,
        max_position_embeddings=24,
    )  # fmt: skip
    numbers = [[{**row, "label": row["label"] / 2} for row in some] for some in (TRAIN, TEST)]
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    train_by_hand(tmp_path / "trainer", model, train=numbers[0])
    study = study_from_trainer("grades", tmp_path / "trainer", train=numbers[0], test=numbers[1], out=tmp_path / "s")
    assert study.header.loss == "mse" and study.header.task == "regression"
    with torch.no_grad():
        expected = model(**{k: v for k, v in collated(TEST).items() if k != "labels"}).logits
    torch.testing.assert_close(study.task.outputs_of("test"), expected, rtol=0, atol=1e-5)


def test_an_image_model(tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4,
        num_channels=1, num_labels=2,
    )  # fmt: skip
    model = transformers.AutoModelForImageClassification.from_config(config).eval()
    model.save_pretrained(tmp_path / "trainer")
    images = [{"pixel_values": torch.randn(1, 8, 8), "labels": i % 2} for i in range(9)]
    study = study_from_trainer("eyes", tmp_path / "trainer", train=images, test=images[:5], out=tmp_path / "s")
    with torch.no_grad():
        expected = model(torch.stack([row["pixel_values"] for row in images[:5]])).logits
    torch.testing.assert_close(study.task.outputs_of("test"), expected, rtol=0, atol=1e-5)
    assert attribute(study, "grad_dot", test=[0]).scores.isfinite().all()


def changed_config(folder: Path, **values: Any) -> None:
    for file in folder.glob("checkpoint-*/config.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"auto_map": {"AutoModel": "code.Model"}}, "'auto_map': code or weights from elsewhere"),
        ({"quantization_config": {"bits": 4}}, "'quantization_config'"),
        ({"model_type": "no-such"}, "The model cannot be built: 'no-such'"),
        ({"model_type": None}, "names no model_type"),
        ({"hidden_size": 33}, "The model cannot be built"),
        ({"hidden_size": 64}, "Checkpoint 1 does not fit the model"),
        ({"architectures": ["BertForMaskedLM"]}, "says BertForMaskedLM"),
        ({"problem_type": "multi_label_classification"}, "Multi-label models are not supported"),
    ],
)
def test_configurations_that_cannot_be_used(tmp_path: Path, values: dict, words: str) -> None:
    train_by_hand(tmp_path / "trainer", bert())
    changed_config(tmp_path / "trainer", **values)
    with pytest.raises(BadInput, match=words):
        study_from_trainer("moods", tmp_path / "trainer", train=TRAIN, test=TEST, out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_code_named_deep_inside_a_configuration_is_refused() -> None:
    content = {"model_type": "bert", "parts": [{"text": {"auto_map": {"AutoConfig": "x--y.Z"}}}]}
    with pytest.raises(BadInput, match="auto_map"):
        checked_configuration(content, "config.json")
    assert checked_configuration({"model_type": "bert", "auto_map": None, "_x": 1}, "c") == {
        "model_type": "bert", "auto_map": None,
    }  # fmt: skip
    with pytest.raises(BadInput, match="Unknown kind of model"):
        configured_model("AutoModelForCausalLM", "{}")
    with pytest.raises(BadInput, match="configuration cannot be read"):
        configured_model("AutoModelForSequenceClassification", "{")


def test_folders_and_data_that_cannot_be_used(trained: tuple[Path, Any], tmp_path: Path) -> None:
    def refused(words: str, folder: Path = trained[0], **given: Any) -> None:
        data = {"train": TRAIN, "test": TEST, **given}
        with pytest.raises(BadInput, match=words):
            study_from_trainer("moods", folder, out=tmp_path / "s", **data)
        assert not (tmp_path / "s").exists()

    refused("is no folder", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    refused("holds no checkpoint-N folder", tmp_path / "empty")
    (tmp_path / "bare" / "checkpoint-1").mkdir(parents=True)
    refused("config.json does not exist", tmp_path / "bare")
    refused("The train data is empty", train=[])
    refused("It is a dict", train={"train": TRAIN})
    refused("no 'input_ids'", train=[{"text": "a", "label": 1}])
    refused("no 'label'", train=[{"input_ids": [1, 2]}])
    refused("Row 0 is a tuple", train=[(1, 2)])
    refused("'label' holds 'glad'", test=[{**TEST[0], "label": "glad"}])
    refused("There is no such column in the train data", show="sentence")
    refused("The test targets cannot be kept", test=[{**TEST[0], "label": 3}])


def test_a_damaged_trainer_state_and_a_missing_weights_file(tmp_path: Path) -> None:
    train_by_hand(tmp_path / "trainer", bert())
    state = tmp_path / "trainer" / "checkpoint-4" / "trainer_state.json"
    for text in ("{", '{"log_history": 3}', '{"log_history": [{"step": 1, "learning_rate": NaN}]}'):
        state.write_text(text)
        with pytest.raises(BadInput, match="A file of the Trainer cannot be read"):
            study_from_trainer("moods", tmp_path / "trainer", train=TRAIN, test=TEST, out=tmp_path / "s")
    state.unlink()
    (tmp_path / "trainer" / "checkpoint-2" / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="A checkpoint has no weights"):
        study_from_trainer("moods", tmp_path / "trainer", train=TRAIN, test=TEST, out=tmp_path / "s")
    (tmp_path / "trainer" / "checkpoint-2" / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match="PEFT adapter"):
        study_from_trainer("moods", tmp_path / "trainer", train=TRAIN, test=TEST, out=tmp_path / "s")


# -- with the Trainer itself ------------------------------------------------------------------------------------------


def trainer(folder: Path, model: Any, callbacks: list[Any], **options: Any) -> Any:
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=7, save_steps=2, logging_steps=1, report_to=[], use_cpu=True, seed=3, disable_tqdm=True,
        per_device_train_batch_size=4, learning_rate=0.01, **options,
    )  # fmt: skip
    return transformers.Trainer(model, arguments, collated, TRAIN, TEST, callbacks=callbacks)


@needs_trainer
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_folder_of_the_trainer_itself(tmp_path: Path) -> None:
    from influence_core.adapters.hf_callback import InfluenceCallback

    callback = InfluenceCallback(tmp_path / "recording", every=3)
    ran = trainer(tmp_path / "trainer", bert(), [callback], remove_unused_columns=False)
    ran.train()
    study = study_from_trainer("moods", tmp_path / "trainer", train=TRAIN, test=TEST, out=tmp_path / "s")
    predictions = ran.predict(TEST).predictions
    np.testing.assert_allclose(study.task.outputs_of("test").numpy(), predictions, rtol=0, atol=1e-5)
    steps = [entry["step"] for entry in study.header.checkpoints]
    assert steps == [2, 4, 6, 7]
    expected = [0.01 * (1 - (step - 1) / 7) for step in steps]
    np.testing.assert_allclose(study.task.learning_rates, expected, rtol=1e-6)

    recording = load_recording(tmp_path / "recording")
    assert [entry.step for entry in recording.entries] == [3, 6, 7] and recording.complete
    np.testing.assert_allclose(recording.learning_rates, [0.01 * (1 - (s - 1) / 7) for s in (3, 6, 7)], rtol=1e-6)
    for step, path in zip((6, 7), recording.checkpoints[1:], strict=True):
        saved = load_file(tmp_path / "trainer" / f"checkpoint-{step}" / "model.safetensors")
        torch.testing.assert_close(load_file(path), saved, rtol=0, atol=0)
    batches = pq.read_table(recording.trajectory_path)["batch"].to_pylist()
    assert [len(batch) for batch in batches] == [4] * 7 and len({i for batch in batches for i in batch}) == 28


@needs_trainer
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_batches_of_the_trainer_are_the_ones_it_trained_on(tmp_path: Path) -> None:
    from influence_core.adapters.hf_callback import InfluenceCallback

    seen: list[list[str]] = []
    texts = {json.dumps(row["input_ids"]): i for i, row in enumerate(TRAIN)}

    def spying(some: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        seen.append([texts[json.dumps(row["input_ids"])] for row in some])
        return collated(some)

    callback = InfluenceCallback(tmp_path / "recording", ids=[f"row{i}" for i in range(len(TRAIN))])
    ran = trainer(tmp_path / "trainer", bert(), [callback], remove_unused_columns=False, gradient_accumulation_steps=3)
    ran.data_collator = spying
    ran.train()
    # 30 rows are 8 batches an epoch: accumulated by 3, 3 and 2.
    steps, place = [], 0
    for step in range(7):
        size = 2 if step % 3 == 2 else 3
        steps.append([f"row{i}" for batch in seen[place : place + size] for i in batch])
        place += size
    path = load_recording(tmp_path / "recording").trajectory_path
    assert pq.read_table(path)["batch"].to_pylist() == steps


@needs_trainer
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_best_weights_loaded_at_the_end_are_not_taken_for_the_last(tmp_path: Path) -> None:
    from influence_core.adapters.hf_callback import InfluenceCallback

    callback = InfluenceCallback(tmp_path / "recording", at=[])
    ran = trainer(
        tmp_path / "trainer", bert(), [callback], remove_unused_columns=False, load_best_model_at_end=True,
        eval_strategy="steps", eval_steps=2, metric_for_best_model="loss", greater_is_better=False,
    )  # fmt: skip
    ran.train()
    recording = load_recording(tmp_path / "recording")
    assert [entry.step for entry in recording.entries] == [7] and "best weights" in recording.notes[0]
    found = load_file(recording.checkpoints[0])
    last = load_file(tmp_path / "trainer" / "checkpoint-7" / "model.safetensors")
    torch.testing.assert_close(found, last, rtol=0, atol=0)
    assert not torch.equal(found["classifier.weight"], ran.model.state_dict()["classifier.weight"])


# -- loading ----------------------------------------------------------------------------------------------------------


def in_fresh_python(code: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )


def test_importing_the_package_loads_no_training_library() -> None:
    code = (
        "import sys, influence_core\nfrom influence_core import Recorder, load_recording, Study\n"
        "import influence_core.adapters.hf_trainer\n"
        "print([m for m in ('transformers', 'lightning', 'pytorch_lightning', 'datasets') if m in sys.modules])"
    )
    ran = in_fresh_python(code)
    assert ran.stdout == "[]\n", ran.stderr


def test_a_missing_library_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BadInput, match=r"pip install 'influence-dashboard\[transformers\]'"):
        transformers_library()


@pytest.mark.parametrize(("content", "hidden"), [("raise RuntimeError('operator does not exist')", True), ("", False)])
def test_a_torchvision_that_cannot_be_imported_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, hidden: bool
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(content)
    for name in ("transformers", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None)  # so that both are put back as they are now
        del sys.modules[name]
    monkeypatch.syspath_prepend(tmp_path)
    _hide_broken_torchvision()
    assert (sys.modules["torchvision"] is None) == hidden


def test_deeply_nested_configurations_do_not_overflow() -> None:
    content: dict[str, Any] = {"auto_map": "x"}
    for _ in range(5000):
        content = {"a": content}
    with pytest.raises(BadInput, match="auto_map"):
        checked_configuration({"model_type": "bert", "a": content}, "config.json")
