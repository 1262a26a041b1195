"""The reference: federated averaging as common simulators write it, on torchvision's data set and DataLoader."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from fedrobust.data.files import find_data_root
from fedrobust.training.local_training import LocalTraining


@dataclass(frozen=True)
class ReferenceRound:
    """Seconds spent in training, messages (none here), aggregation and evaluation, and the accuracy after."""

    seconds: tuple[float, float, float, float]
    accuracy: float


class DataLoaderFederation:
    """Clients that copy the global module and train it over a DataLoader; nothing of this package trains here."""

    def __init__(self, model: nn.Module, assignment: Sequence[Tensor], training: LocalTraining, device: str) -> None:
        root = find_data_root(None)
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
        train = datasets.MNIST(str(root), train=True, transform=transform)
        self.clients = [Subset(train, indices.tolist()) for indices in assignment]
        self.test = datasets.MNIST(str(root), train=False, transform=transform)
        self.model, self.training, self.device = copy.deepcopy(model), training, device

    def play_round(self, clients: Sequence[int]) -> ReferenceRound:
        """Train `clients`, average their state dicts by number of examples, evaluate."""
        started = time.perf_counter()
        states = [self._train(client) for client in clients]
        trained = time.perf_counter()
        sizes = [len(self.clients[client]) for client in clients]
        self.model.load_state_dict(
            {
                name: sum(state[name] * (size / sum(sizes)) for state, size in zip(states, sizes, strict=True))
                for name in states[0]
            }
        )
        aggregated = time.perf_counter()
        accuracy = self._evaluate()
        evaluated = time.perf_counter()
        return ReferenceRound((trained - started, 0.0, aggregated - trained, evaluated - aggregated), accuracy)

    def _train(self, client: int) -> dict[str, Tensor]:
        model = copy.deepcopy(self.model).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=self.training.learning_rate)
        loader = DataLoader(self.clients[client], batch_size=self.training.batch_size, shuffle=True)
        for _ in range(self.training.num_epochs):
            for inputs, labels in loader:
                loss = F.cross_entropy(model(inputs.to(self.device)), labels.to(self.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return model.state_dict()

    @torch.no_grad()
    def _evaluate(self) -> float:
        self.model.eval()
        hits = 0
        for inputs, labels in DataLoader(self.test, batch_size=self.training.batch_size):
            hits += int((self.model(inputs.to(self.device)).argmax(dim=1).cpu() == labels).sum())
        return hits / len(self.test)
