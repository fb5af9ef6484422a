"""Small tasks by name: zero-argument factories, the shapes of model and data that the engine must handle.

Weights and data are float64 and come from fixed seeds, without touching the global random state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from influence_core.task import Recipe, Task

N_TRAIN, N_TEST = 11, 4
CASES: dict[str, Callable[[], Task]] = {}


def case(function: Callable[[], Task]) -> Callable[[], Task]:
    """Add a factory to the catalogue under its name."""
    CASES[function.__name__] = function
    return function


# -- parts ------------------------------------------------------------------------------------------------------------


def made(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a module from a seed, in float64, with running statistics that are not trivial."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed writes stacks down: a tenth of these tests' time
        model = factory().double()
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.track_running_stats:
                module.running_mean = torch.randn_like(module.running_mean)
                module.running_var = torch.rand_like(module.running_var) + 0.5
    return model


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def integers(high: int, *shape: int, seed: int) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def images(n: int, seed: int, channels: int = 2, size: int = 6) -> tuple[Tensor, Tensor]:
    return normal(n, channels, size, size, seed=seed), integers(3, n, seed=seed + 100)


def vectors(n: int, seed: int, d: int = 5, classes: int = 3) -> tuple[Tensor, Tensor]:
    return normal(n, d, seed=seed), integers(classes, n, seed=seed + 100)


def sentences(n: int, seed: int, length: int = 5, classes: int = 3) -> tuple[Tensor, Tensor]:
    tokens = integers(7, n, length, seed=seed)
    tokens[:, -1] = 0  # padding in every row
    return tokens, integers(classes, n, seed=seed + 100)


def task_of(
    factory: Callable[[], nn.Module], data: Callable[[int, int], tuple[Any, Any]], loss: Any = "cross_entropy",
    checkpoints: int = 2, **more: Any,
) -> Task:  # fmt: skip
    """A task with a module's weights at several checkpoints, learning rates .1, .2, ..."""
    models = [made(factory, seed) for seed in range(checkpoints)]
    return Task(
        lambda: made(factory, 0), data(N_TRAIN, 1), data(N_TEST, 2), loss,
        checkpoints=[model.state_dict() for model in models],
        learning_rates=[0.1 * (k + 1) for k in range(checkpoints)], **more,
    )  # fmt: skip


# -- the common shapes ------------------------------------------------------------------------------------------------


@case
def mlp() -> Task:
    return task_of(lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), vectors)


@case
def mlp_with_str_ids() -> Task:
    return task_of(
        lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), vectors,
        train_ids=[f"row-{i}" for i in range(N_TRAIN)], test_ids=[f"q{i}" for i in range(N_TEST)],
    )  # fmt: skip


@case
def linear_alone() -> Task:
    return task_of(lambda: nn.Linear(5, 3), vectors)


@case
def cnn_inplace() -> Task:
    return task_of(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 6),
            nn.ReLU(inplace=True), nn.Linear(6, 3),
        ),
        images,
    )  # fmt: skip


class Residual(nn.Module):
    """Two convolutions around a skip connection, with BatchNorm and an in-place sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.stem(x)))
        y = self.conv2(F.relu(self.conv1(x), inplace=True))
        y += x
        return self.head(F.relu(self.norm2(y)).mean((2, 3)))


@case
def residual_cnn() -> Task:
    return task_of(Residual, images)


class Transformer(nn.Module):
    """Embedding with padding, positions as a bare parameter, one encoder layer with dropout, mean over tokens."""

    def __init__(self, batch_first: bool = True, mask: bool = False) -> None:
        super().__init__()
        self.mask, self.batch_first = mask, batch_first
        self.embedding = nn.Embedding(7, 8, padding_idx=0)
        self.place = nn.Parameter(torch.randn(5, 8) / 3)
        self.block = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.3, batch_first=batch_first)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.place[: tokens.shape[1]]
        hidden = tokens == 0 if self.mask else None
        x = x if self.batch_first else x.transpose(0, 1)
        x = self.block(x, src_key_padding_mask=hidden)
        x = x if self.batch_first else x.transpose(0, 1)
        return self.head(self.norm(x).mean(1))


@case
def transformer() -> Task:
    return task_of(Transformer, sentences)


@case
def transformer_masked() -> Task:
    return task_of(lambda: Transformer(mask=True), sentences)


@case
def transformer_sequence_first() -> Task:
    """Modules see ``[length, n, d]``; the length equals the number of rows that the engine proves its plan on."""
    return task_of(lambda: Transformer(batch_first=False), lambda n, seed: sentences(n, seed, length=3))


class Attention(nn.Module):
    """Self-attention by ``nn.MultiheadAttention`` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.attend(x, x, x, need_weights=False)
        return self.head((x + y).mean(1))


@case
def attention() -> Task:
    return task_of(Attention, lambda n, seed: (normal(n, 4, 6, seed=seed), integers(3, n, seed=seed)))


class Tied(nn.Module):
    """Embedding and decoder share their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.mix = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 7, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.mix(self.embedding(tokens).mean(1))))


@case
def tied_weights() -> Task:
    return task_of(Tied, lambda n, seed: sentences(n, seed, classes=7))


class Twice(nn.Module):
    """One Linear module called two times."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.step(torch.tanh(self.step(x)))))


@case
def called_twice() -> Task:
    return task_of(Twice, vectors)


class TokensTwice(nn.Module):
    """One Embedding called two times, with another number of tokens each time."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4, padding_idx=0)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens).mean(1) * self.embedding(tokens[:, :2]).sum(1))


@case
def embedding_twice() -> Task:
    return task_of(TokensTwice, sentences)


class Keywords(nn.Module):
    """Called with keywords: numbers and a category."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = nn.Linear(4, 5)
        self.category = nn.Embedding(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        return self.head(torch.tanh(self.numbers(x) + self.category(kind)))


@case
def dict_input() -> Task:
    def data(n: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
        return {"x": normal(n, 4, seed=seed), "kind": integers(6, n, seed=seed)}, integers(3, n, seed=seed + 100)

    return task_of(Keywords, data)


class Positions(nn.Module):
    """Called with two positional tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Bilinear(4, 2, 3)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.left(x) + self.right(x, z)


@case
def tuple_input() -> Task:
    def data(n: int, seed: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        return (normal(n, 4, seed=seed), normal(n, 2, seed=seed + 1)), integers(3, n, seed=seed + 100)

    return task_of(Positions, data)


class Bare(nn.Module):
    """Parameters of its own and no layer at all."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3))
        self.scale = nn.Parameter(torch.ones(()))
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * torch.sinh(x @ self.weight / 3) + self.shift


@case
def bare_parameters() -> Task:
    return task_of(Bare, vectors)


class Outside(nn.Module):
    """Uses a Linear's weight both through the module and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.first(x)) @ self.first.weight)


@case
def weight_used_outside() -> Task:
    return task_of(Outside, vectors)


@case
def recurrent() -> Task:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0][:, -1])

    return task_of(Recurrent, lambda n, seed: (normal(n, 4, 3, seed=seed), integers(3, n, seed=seed)))


@case
def weight_norm() -> Task:
    return task_of(
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 3)
        ),
        vectors,
    )  # fmt: skip


# -- layers -----------------------------------------------------------------------------------------------------------


@case
def conv1d() -> Task:
    return task_of(
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3, stride=2, padding=2, dilation=2, padding_mode="circular"), nn.Tanh(),
            nn.Conv1d(4, 4, 2, groups=2), nn.Flatten(), nn.Linear(20, 3),
        ),
        lambda n, seed: (normal(n, 2, 11, seed=seed), integers(3, n, seed=seed)),
    )  # fmt: skip


@case
def group_norm() -> Task:
    return task_of(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.InstanceNorm2d(4, affine=True), nn.Flatten(),
            nn.Linear(64, 3),
        ),
        images,
    )  # fmt: skip


@case
def instance_norm_with_statistics() -> Task:
    return task_of(
        lambda: nn.Sequential(
            nn.Conv1d(2, 3, 3), nn.InstanceNorm1d(3, affine=True, track_running_stats=True), nn.Tanh(), nn.Flatten(),
            nn.Linear(18, 3),
        ),
        lambda n, seed: (normal(n, 2, 8, seed=seed), integers(3, n, seed=seed)),
    )  # fmt: skip


@case
def batch_norm_1d() -> Task:
    return task_of(
        lambda: nn.Sequential(nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5),
                              nn.Linear(6, 3)),
        vectors,
    )  # fmt: skip


@case
def layer_norm_images() -> Task:
    return task_of(
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.LayerNorm([3, 4, 4]), nn.Tanh(), nn.Flatten(), nn.LayerNorm(48, bias=False),
            nn.Linear(48, 3),
        ),
        images,
    )  # fmt: skip


# -- losses and data --------------------------------------------------------------------------------------------------


@case
def regression() -> Task:
    return task_of(
        lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1)),
        lambda n, seed: (normal(n, 5, seed=seed), normal(n, seed=seed + 100)), "mse",
    )  # fmt: skip


@case
def regression_two_outputs() -> Task:
    return task_of(
        lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)),
        lambda n, seed: (normal(n, 5, seed=seed), normal(n, 2, seed=seed + 100)), "mse",
    )  # fmt: skip


@case
def binary() -> Task:
    return task_of(
        lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1)),
        lambda n, seed: vectors(n, seed, classes=2), "bce",
    )  # fmt: skip


def smooth_loss(model: Any, batch: Any) -> Tensor:
    """A custom loss: the model is called, and one of its layers is looked at besides."""
    f = model(batch.inputs)
    return F.cross_entropy(f, batch.targets, reduction="none", label_smoothing=0.2) + 0.05 * f.square().sum(1)


@case
def custom_loss() -> Task:
    return task_of(lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)), vectors, smooth_loss)


class Encoder(nn.Module):
    """A model whose loss never calls ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 4)
        self.scale = nn.Parameter(torch.rand(4) + 0.5)

    def encoded(self, x: Tensor) -> Tensor:
        return torch.tanh(self.inner(x)) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return self.encoded(x)


def reconstruction(model: Any, batch: Any) -> Tensor:
    """A custom loss through a method and a weight of the model instead of a call."""
    code = model.encoded(batch.inputs)
    return (code @ model.inner.weight - batch.inputs).square().sum(1)


@case
def custom_loss_through_method() -> Task:
    return task_of(Encoder, lambda n, seed: (normal(n, 5, seed=seed), torch.zeros(n)), reconstruction)


@case
def dataset() -> Task:
    def data(n: int, seed: int) -> Dataset:
        return TensorDataset(*vectors(n, seed))

    return task_of(lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), data)  # type: ignore[arg-type]


# -- a convex task, trained to convergence ----------------------------------------------------------------------------

WEIGHT_DECAY = 0.02


@cache
def _convex_parts() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], dict[str, Tensor]]:
    n, d, classes = 40, 4, 3
    centres = 1.5 * normal(classes, d, seed=5)
    y, yt = integers(classes, n, seed=6), integers(classes, 8, seed=7)
    x, xt = centres[y] + normal(n, d, seed=8), centres[yt] + normal(8, d, seed=9)
    weight = torch.zeros(classes, d, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, y) + WEIGHT_DECAY / 2 * (
            weight.square().sum() + bias.square().sum()
        )
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return (x, y), (xt, yt), {"weight": weight.detach(), "bias": bias.detach()}


def convex_factory() -> nn.Module:
    return nn.Linear(4, 3).double()


@case
def convex() -> Task:
    """Logistic regression with L2 at its optimum: leave-one-out is exact and unique."""
    train, test, state = _convex_parts()
    recipe = Recipe(
        optimizer="lbfgs", learning_rate=1.0, weight_decay=WEIGHT_DECAY, batch_size=len(train[1]), epochs=100,
        dtype="float64",
    )  # fmt: skip
    return Task(convex_factory, train, test, checkpoints=[state], learning_rates=[1.0], recipe=recipe)


def stepped_factory() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


@cache
def _stepped_state(recipe: Recipe) -> dict[str, Tensor]:
    from influence_core.primitives.training import new_model, training

    model = new_model(stepped_factory, recipe)
    rows = Task(stepped_factory, vectors(N_TRAIN, 1), vectors(N_TEST, 2), checkpoints=[model.state_dict()])
    for _ in training(model, rows.split("train"), rows.loss, recipe):
        pass
    return {name: value.clone() for name, value in model.state_dict().items()}


@case
def stepped() -> Task:
    """A net trained by its recipe, for methods that follow the steps; full batches, so that rows have no order."""
    recipe = Recipe(learning_rate=0.3, momentum=0.5, weight_decay=0.01, batch_size=N_TRAIN, epochs=5, dtype="float64")  # type: ignore[call-arg]
    return Task(
        stepped_factory, vectors(N_TRAIN, 1), vectors(N_TEST, 2), checkpoints=[_stepped_state(recipe)],
        learning_rates=[0.3], recipe=recipe,
    )  # fmt: skip
