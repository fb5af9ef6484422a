"""Your own training loop with a Recorder (two lines), then the study that the dashboard opens.

Run it with ``python train.py``, then see the study with ``make run MODELS=model:make_net``, STUDIES being this folder's
``studies`` and PYTHONPATH this folder. Put your own data where scikit-learn's digits are.
"""

import torch
import torch.nn.functional as F
from model import make_net
from sklearn.datasets import load_digits

from influence_core import Recorder, Study, attribute


def data() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Return train and test as ``(inputs, labels)``; a torch Dataset of such pairs will do as well."""
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    return (x[:1200], y[:1200]), (x[1200:], y[1200:])


def trained(train: tuple[torch.Tensor, torch.Tensor], folder: str) -> None:
    """Train as you always do; the Recorder keeps checkpoints, learning rates and the order of the rows."""
    torch.manual_seed(0)
    model, (x, y) = make_net(), train
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with Recorder(folder, model, optimizer) as recorder:
        for _ in range(15):
            for rows in torch.randperm(len(y)).split(32):
                optimizer.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
                recorder.step(rows)


if __name__ == "__main__":
    train, test = data()
    trained(train, "recording")
    study = Study.from_torch(
        "own-loop", model="model:make_net", train=train, test=test, recording="recording",
        class_names=[str(i) for i in range(10)],
    )  # fmt: skip
    print("\n".join(study.header.notes))
    print(attribute(study, "tracin_cp", test=[study.task.ids("test")[0]]).to_frame(5))
