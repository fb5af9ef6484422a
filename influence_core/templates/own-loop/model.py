"""The model, in a module of its own, so that the dashboard can build it again: ``model:make_net``."""

from torch import Tensor, nn


class Net(nn.Module):
    """Put your own network here; the last Linear layer gives one number per class."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[n, 10]``."""
        return self.layers(x)


def make_net() -> nn.Module:
    """Return an untrained network."""
    return Net()
