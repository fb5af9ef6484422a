"""Checkpoints as users have them, one at a time in memory, in a form that a study keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from influence_core.checkpoints import StateDict, checked_checkpoints, load_state
from influence_core.errors import BadInput, NumericalProblem

_HALF = (torch.float16, torch.bfloat16)
_WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile


class Weights(Mapping[str, StateDict]):
    """File name in the study -> weights: read when asked for, checked against the model, half precision as float32.

    Args:
        given: State dicts, or files of them, in the order of training.
        module: The model that they must fit; it is not changed.

    Attributes:
        half: The types of half precision met so far.
        unwrapped: The prefixes met so far that a wrapper put before every name.
    """

    def __init__(self, given: Sequence[StateDict | str | Path], module: nn.Module) -> None:
        """Check that there are some; no file is opened."""
        self._given = checked_checkpoints(given)
        if not self._given:
            raise BadInput(
                "There is no trained model",
                "No checkpoint was given.",
                "Give checkpoints=[model.state_dict()], or files of several moments of the training.",
            )
        self._names = [f"checkpoints/{index:04d}.safetensors" for index in range(len(self._given))]
        self._shapes = {name: value.shape for name, value in module.state_dict().items()}
        self.half: set[str] = set()
        self.unwrapped: set[str] = set()

    def __len__(self) -> int:
        """Return the number of checkpoints."""
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        """Yield the file names, in the order of training."""
        return iter(self._names)

    def __getitem__(self, name: str) -> StateDict:
        """Return the weights of a checkpoint.

        Raises:
            BadInput: Its file cannot be read, or it does not fit the model.
            NumericalProblem: It holds a NaN or an infinity.
        """
        index = self._names.index(name)
        item = self._given[index]
        place = f"{item}: " if isinstance(item, Path) else ""
        state = self._bare(load_state(item, index) if isinstance(item, Path) else item)
        self._check_names(state, index, place)
        return {key: self._kept(key, value, index, place) for key, value in state.items()}

    @property
    def last(self) -> StateDict:
        """Return the weights of the explained model."""
        return self[self._names[-1]]

    @property
    def notes(self) -> list[str]:
        """Return what was done to the checkpoints that were read, in sentences."""
        notes = []
        if self.half:
            kinds = " and ".join(sorted(self.half))
            notes.append(f"The checkpoints hold {kinds}; they were kept as float32, in which all is computed here.")
        notes += [f"'{prefix}' was taken from the front of every weight's name." for prefix in sorted(self.unwrapped)]
        return notes

    def _bare(self, state: StateDict) -> StateDict:
        for prefix in _WRAPPERS:
            if all(name.startswith(prefix) for name in state) and not any(n.startswith(prefix) for n in self._shapes):
                self.unwrapped.add(prefix)
                state = {name.removeprefix(prefix): value for name, value in state.items()}
        return state

    def _check_names(self, state: StateDict, index: int, place: str) -> None:
        missing, unknown = sorted(set(self._shapes) - set(state)), sorted(set(state) - set(self._shapes))
        other = [n for n, shape in self._shapes.items() if n in state and state[n].shape != shape]
        if not (missing or unknown or other):
            return
        if other:
            name = other[0]
            why = f"'{name}' is {list(state[name].shape)}, in the model {list(self._shapes[name])}"
        else:
            parts = [("it lacks", missing), ("it has", unknown)]
            why = "; ".join(f"{how} '{names[0]}' and {len(names) - 1} more" for how, names in parts if names)
            why = why.replace(" and 0 more", "")
        fix = "Give checkpoints of exactly this model: the factory must build what was trained."
        raise BadInput(f"Checkpoint {index} does not fit the model", f"{place}{why}.", fix)

    def _kept(self, key: str, value: Tensor, index: int, place: str) -> Tensor:
        if value.is_quantized or value.layout != torch.strided or value.is_complex():
            why = f"{place}'{key}' is a tensor of {value.dtype}, {value.layout}."
            raise BadInput(f"Checkpoint {index} cannot be kept", why, "Give dense weights of real numbers.")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            fix = "Leave this checkpoint out or train with a smaller learning rate."
            raise NumericalProblem(f"Checkpoint {index} is broken", f"{place}'{key}' holds a NaN or an infinity.", fix)
        value = value.detach().cpu()
        if value.dtype in _HALF:
            self.half.add(str(value.dtype).removeprefix("torch."))
            value = value.float()
        return value.clone(memory_format=torch.contiguous_format)  # weights that layers share are written for each
