"""What a Hugging Face Trainer leaves in its output folder, read without running anything of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from influence_core.adapters.snapshots import save_weights
from influence_core.errors import BadInput
from influence_core.pretrained import transformers_library

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """One ``checkpoint-N`` folder."""

    path: Path
    step: int | None

    def read_json(self, name: str) -> Any:
        """Return the content of a JSON file of the folder, or None if it is not there.

        Raises:
            BadInput: It is damaged.
        """
        file = self.path / name
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise BadInput("A file of the Trainer cannot be read", f"{file}: {error}.", "Restore it.") from None

    def weights(self, auto: str, names: set[str], index: int, spare: Path) -> Path:
        """Return a file of the weights under the model's own names.

        That is the checkpoint's own file, or where this uses other names (older ones, shards, no name for a tied
        weight), one written from the model as the library loads it.

        Args:
            auto: The library's class that loads it.
            names: Names of the model's weights.
            index: Place of the checkpoint, for messages.
            spare: Where to write.

        Raises:
            BadInput: There are none, or they cannot be read or do not fit the model.
        """
        if (self.path / "adapter_config.json").exists():
            why = f"{self.path} holds a PEFT adapter, not a whole model."
            raise BadInput("The checkpoint cannot be used", why, "Merge it into the model and save that.")
        if not any((self.path / f"{name}{end}").is_file() for name in _WEIGHTS for end in ("", ".index.json")):
            why = f"{self.path} holds no {' or '.join(_WEIGHTS)}."
            raise BadInput("A checkpoint has no weights", why, "Put the file back, or delete the checkpoint's folder.")
        whole = self.path / _WEIGHTS[0]
        if whole.is_file() and _names(whole, index) == names:
            return whole
        save_weights(spare, self.loaded(auto, index).state_dict())
        return spare

    def loaded(self, auto: str, index: int) -> nn.Module:
        """Return the model as the library loads it, in eval mode; pickled weights are read as tensors only.

        Raises:
            BadInput: It cannot be loaded, or lacks weights.
        """
        kind = getattr(transformers_library(), auto)
        options = {"local_files_only": True, "trust_remote_code": False, "output_loading_info": True}
        try:
            try:
                model, info = kind.from_pretrained(self.path, attn_implementation="sdpa", **options)
            except ValueError:  # not every model has it
                model, info = kind.from_pretrained(self.path, attn_implementation="eager", **options)
        except Exception as error:  # noqa: BLE001  (the library raises whatever a wrong file runs into)
            why = f"{self.path}: {' '.join(str(error).split())[:300].rstrip('.')}."
            raise BadInput(f"Checkpoint {index} cannot be read", why, "Save the model again.") from None
        for what, key in (("lacks", "missing_keys"), ("has an unknown", "unexpected_keys")):
            if info.get(key):
                why = f"{self.path} {what} '{sorted(map(str, info[key]))[0]}'."
                raise BadInput(f"Checkpoint {index} does not fit the model", why, "Save the model again.")
        return model.float().eval()


def _names(file: Path, index: int) -> set[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            return set(opened.keys())
    except (SafetensorError, OSError) as error:
        why = f"{file}: {' '.join(str(error).split())}."
        raise BadInput(f"Checkpoint {index} cannot be read", why, "Restore it from a copy.") from None


def trainer_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints of an output folder by step, or the one model that is saved in it.

    Raises:
        BadInput: There is none.
    """
    if not folder.is_dir():
        raise BadInput("There is no Trainer folder here", f"{folder} is no folder.", "Give its output_dir.")
    found = [(int(m[1]), path) for path in folder.iterdir() if (m := _NAME.fullmatch(path.name)) and path.is_dir()]
    if found:
        return [Checkpoint(path, step) for step, path in sorted(found)]
    if (folder / "config.json").exists():
        return [Checkpoint(folder, None)]
    raise BadInput(
        "There is no checkpoint here",
        f"{folder} holds no checkpoint-N folder and no config.json.",
        "Give the Trainer's output_dir, and train with save_strategy='steps' or 'epoch'.",
    )


def recorded_rates(checkpoints: Sequence[Checkpoint]) -> tuple[list[float] | None, str]:
    """Return the learning rate at every checkpoint, and a note on where it comes from.

    The log of ``trainer_state.json`` is used: exact at the steps that were logged, in a straight line between them.
    (The library's versions before 5 logged the rate of the step that follows.)

    Returns:
        None where no log names any learning rate.

    Raises:
        BadInput: A ``trainer_state.json`` is damaged.
    """
    steps: list[int] = []
    logged: dict[int, float] = {}
    for checkpoint in checkpoints:
        state = checkpoint.read_json("trainer_state.json")
        try:
            if state is not None:
                logged.update(_logged(state))
            last = checkpoint.step if checkpoint.step is not None else int((state or {})["global_step"])
        except (KeyError, TypeError, ValueError, AttributeError):
            if state is None:
                continue
            why = f"{checkpoint.path / 'trainer_state.json'} is no state of a Trainer."
            raise BadInput("A file of the Trainer cannot be read", why, "Restore it.") from None
        steps.append(last)
    if not logged or len(steps) != len(checkpoints):
        return None, (
            "No trainer_state.json names learning rates (logging_strategy='no'?): methods that weigh checkpoints by "
            "them are unavailable; give learning_rates=[...] to have them."
        )
    known = sorted(logged)
    rates = np.interp(steps, known, [logged[step] for step in known]).tolist()
    between = [step for step in steps if step not in logged]
    if not between:
        return rates, "Learning rates are those that trainer_state.json logged at the checkpoints' steps."
    named = ", ".join(map(str, between[:5])) + (", ..." if len(between) > 5 else "")
    return rates, (
        f"Learning rates come from trainer_state.json; at step {named} none was logged, and the straight line between "
        "the nearest logged steps was used."
    )


def _logged(state: Any) -> dict[int, float]:
    pairs = {int(e["step"]): float(e["learning_rate"]) for e in state["log_history"] if "learning_rate" in e}
    if not all(math.isfinite(rate) and rate >= 0 for rate in pairs.values()):
        raise ValueError("a learning rate is no number")
    return pairs


def checkpoint_facts(checkpoints: Sequence[Checkpoint]) -> list[dict[str, Any]]:
    """Return step and epoch of every checkpoint, where they are known."""
    facts = []
    for checkpoint in checkpoints:
        state = checkpoint.read_json("trainer_state.json")
        epoch = state.get("epoch") if isinstance(state, dict) else None
        fact: dict[str, Any] = {} if checkpoint.step is None else {"step": checkpoint.step}
        facts.append({**fact, **({"epoch": float(epoch)} if isinstance(epoch, (int, float)) else {})})
    return facts
