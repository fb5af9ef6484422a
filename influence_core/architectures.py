"""Built-in models, named in a study by a word and its options, never by code that an uploaded study could bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from influence_core.errors import BadInput
from influence_core.pretrained import configured_model


def cnn(
    channels: int, size: int, n_classes: int, widths: tuple[int, int] = (8, 16), hidden: int = 32,
    center: float = 0.0, scale: float = 1.0,
) -> nn.Module:  # fmt: skip
    """Return two convolutions with pooling and two Linear layers, for square images; ``center``: see ``mlp``."""
    first, second = widths
    last: list[nn.Module] = [Rescaled(center, scale)] if (center, scale) != (0.0, 1.0) else []
    return nn.Sequential(
        nn.Conv2d(channels, first, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(second * (size // 4) ** 2, hidden), nn.ReLU(), nn.Linear(hidden, n_classes), *last,
    )  # fmt: skip


class Rescaled(nn.Module):
    """``center + scale * x``, fixed: outputs in the unit of a regression's labels."""

    def __init__(self, center: float, scale: float) -> None:
        """Keep both numbers; there is nothing to train."""
        super().__init__()
        self.center, self.scale = float(center), float(scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        return self.center + self.scale * x

    def extra_repr(self) -> str:
        """Show both numbers."""
        return f"center={self.center}, scale={self.scale}"


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "tanh": nn.Tanh, "logistic": nn.Sigmoid, "identity": nn.Identity
}  # fmt: skip


def mlp(
    n_inputs: int, n_classes: int, hidden: tuple[int, ...] = (32,), center: float = 0.0, scale: float = 1.0,
    activation: str = "relu",
) -> nn.Module:  # fmt: skip
    """Return Linear layers with a nonlinearity between them; inputs of any shape are flattened.

    Args:
        n_inputs: Numbers per row.
        n_classes: Outputs; 1 for a regression.
        hidden: Widths between.
        center: Of a regression's labels, with ``scale``: what the network learns is ``(label - center) / scale``.
        scale: See there.
        activation: One of ``ACTIVATIONS``.

    Raises:
        ValueError: It is none of them.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is '{activation}', not one of {', '.join(ACTIVATIONS)}")
    widths = (n_inputs, *hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(len(hidden)):
        layers += [nn.Linear(widths[i], widths[i + 1]), ACTIVATIONS[activation]()]
    last: list[nn.Module] = [Rescaled(center, scale)] if (center, scale) != (0.0, 1.0) else []
    return nn.Sequential(*layers, nn.Linear(widths[-1], n_classes), *last)


def logistic(n_inputs: int, n_classes: int, center: float = 0.0, scale: float = 1.0, bias: bool = True) -> nn.Module:
    """Return multinomial logistic regression, or with one output linear regression: one Linear layer."""
    model = mlp(n_inputs, n_classes, (), center, scale)
    assert isinstance(model, nn.Sequential)
    if not bias:
        model[1] = nn.Linear(n_inputs, n_classes, bias=False)
    return model


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "cnn": cnn, "mlp": mlp, "logistic": logistic, "transformers": configured_model
}  # fmt: skip


def model_factory(name: str, options: Mapping[str, Any]) -> Callable[[], nn.Module]:
    """Return a zero-argument factory of a built-in model.

    Raises:
        BadInput: Unknown name or options.
    """
    if name not in ARCHITECTURES:
        raise BadInput("Unknown model", f"'{name}' is not built in.", f"Use one of: {', '.join(ARCHITECTURES)}.")
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    factory = partial(ARCHITECTURES[name], **plain)
    try:
        factory()
    except (TypeError, RuntimeError, ValueError) as error:
        raise BadInput(
            f"The model '{name}' cannot be built", f"{error}.", "Correct its options in study.toml."
        ) from None
    return factory
