"""Embedding a watermark: the owner trains the model on its trigger set, at the start and after every aggregation.

Tekgul, Xia, Marchal, Asokan, "WAFFLE: Watermarking in Federated Learning", SRDS 2021,
https://arxiv.org/abs/2008.07298
Departs: training goes on after the trigger set is right, until the loss is low, too (`max_loss`): what is only just
learnt is lost in fine-tuning. Batch normalisation keeps its statistics (the authors' code lets them follow the trigger
set). PreTrain stops as ReTrain does. Where the owner holds clean examples, some are in every batch, as Adi
et al. have it (USENIX Security 2018); WAFFLE's server holds none.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor
from torch.func import functional_call

from fedrobust.config.component import Count, FieldError, Index, Positive, component
from fedrobust.data.examples import Dataset, Examples
from fedrobust.models.own_state import put_back
from fedrobust.seeds import torch_generator
from fedrobust.training.loop import channels_last, model_inputs
from fedrobust.training.predictor import Predictor
from fedrobust.types import Vector
from fedrobust.watermarks.ownership import count_matches
from fedrobust.watermarks.trigger_set import Material, Triggers, TriggerSet


@component
class NoWatermark:
    """The model is nobody's in particular."""

    def draw(self, dataset: Dataset, seed: int, data_root: Path | None) -> None:
        """No mark."""


@component
class Watermark:
    """A trigger set, and how the server teaches it to the global model: gradient descent without momentum.

    Attributes:
        trigger_set: what the model must know by heart.
        embed_in: `initial_model`, before round 1; `rounds`, after every aggregation; `both`, as WAFFLE.
        target_accuracy: training stops once so much of the trigger set is right; WAFFLE's is 0.98.
        max_loss: and once the mean cross-entropy of the trigger set is as low, in nats: what is only just learnt is
            soon lost when somebody trains the model further. `None` does not ask, as WAFFLE.
        max_epochs: or after so many passes over the trigger set; WAFFLE's are 100 in a round.
        learning_rate: of the descent; WAFFLE's 0.1, divided by the clients' epochs in a round.
        triggers_per_batch: triggers in a batch; Adi et al. take 2.
        num_own_examples: clean examples that the owner holds, drawn from the training examples; WAFFLE's has none.
        own_per_batch: clean ones (and contrast, where the trigger set has such) in a batch; Adi et al. take 100.
    """

    trigger_set: TriggerSet
    embed_in: Literal["initial_model", "rounds", "both"] = "both"
    target_accuracy: Annotated[float, Gt(0), Le(1)] = 0.98
    max_loss: Positive | None = 0.01
    max_epochs: Count = 100
    learning_rate: Positive = 0.05
    triggers_per_batch: Count = 50
    num_own_examples: Index = 0
    own_per_batch: Index = 0

    def __post_init__(self) -> None:
        """Check that there are clean examples where batches take some."""
        if self.own_per_batch and not self.num_own_examples:
            raise FieldError("num_own_examples", f"must be above 0 for own_per_batch={self.own_per_batch}, got 0")

    def draw(self, dataset: Dataset, seed: int, data_root: Path | None) -> "Mark":
        """The mark of a scenario with this `seed`: trigger set and own examples on the data set's device.

        Raises:
            FieldError: the trigger set cannot be drawn, or more own examples are wanted than there are.
            ValueError: the files of another data set are absent.
        """
        number = len(dataset.train)
        if self.num_own_examples > number:
            raise FieldError(
                "num_own_examples", f"must be at most {number}, the training examples of {dataset.name}, "
                f"got {self.num_own_examples}",
            )  # fmt: skip
        drawn = torch.randperm(number, generator=torch_generator(seed, "own examples"))[: self.num_own_examples]
        own = dataset.train.subset(drawn)
        triggers = self.trigger_set.draw(Material(dataset, own, data_root, torch_generator(seed, "trigger set")))
        return Mark(self, triggers, own, seed)


@dataclass(frozen=True)
class Embedded:
    """What came of embedding: the parameters `(d,)`, the passes over the trigger set, and how much of it is right."""

    vector: Vector
    num_epochs: int
    accuracy: float


@dataclass(frozen=True, eq=False)
class Mark:
    """A watermark that has been drawn for a data set.

    Attributes:
        watermark: how it is embedded.
        triggers: what the model must know by heart.
        own: clean examples of the owner's.
        seed: the scenario's.
    """

    watermark: Watermark
    triggers: Triggers
    own: Examples
    seed: int

    def embeds_in(self, stage: Literal["initial_model", "rounds"]) -> bool:
        """Whether the owner embeds at this stage."""
        return self.watermark.embed_in in (stage, "both")

    def accuracy(self, predictor: Predictor) -> float:
        """The fraction of the trigger set that a model answers as the owner wants."""
        return count_matches(predictor, self.triggers) / len(self.triggers)

    def embed(self, predictor: Predictor, round_number: int) -> Embedded:
        """Train the model on the trigger set until it is learnt; a model that knows it stays as it is, to the bit.

        The model given is not changed; its buffers are read alone. The batches depend on seed and round, nothing else.

        Args:
            predictor: the model.
            round_number: 0 before round 1.
        """
        generator = torch_generator(self.seed, "watermark", round_number)
        num_epochs = 0
        while num_epochs < self.watermark.max_epochs and not self._knows(predictor):
            predictor = dataclasses.replace(predictor, vector=self._pass(predictor, generator))
            num_epochs += 1
        return Embedded(predictor.vector, num_epochs, self.accuracy(predictor))

    def _knows(self, predictor: Predictor) -> bool:
        """Whether the trigger set is learnt."""
        examples, max_loss = self.triggers.examples, self.watermark.max_loss
        logits = predictor.logits(examples.inputs)
        accuracy = float((logits.argmax(dim=1) == examples.labels).double().mean())
        if accuracy < self.watermark.target_accuracy:
            return False
        return max_loss is None or float(F.cross_entropy(logits, examples.labels)) <= max_loss

    def _pass(self, predictor: Predictor, generator: torch.Generator) -> Vector:
        """The parameters after one pass over the trigger set."""
        model, vector = predictor.model, predictor.vector
        was_training = model.training
        model.eval()  # statistics stay those of clean data
        put_back(model)
        for inputs, labels in self._batches(generator):
            leaf = vector.detach().requires_grad_()
            state = {name: channels_last(view) for name, view in predictor.layout.views(leaf).items()}
            seen = channels_last(model_inputs(predictor.dataset, inputs))
            loss = F.cross_entropy(functional_call(model, {**state, **predictor.buffers}, (seen,)), labels)
            (gradient,) = torch.autograd.grad(loss, leaf)
            vector = torch.add(vector.detach(), gradient, alpha=-self.watermark.learning_rate)
        model.train(was_training)
        return vector

    def _batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Every trigger once, and beside those of a batch `own_per_batch` that are none."""
        triggers, beside = self.triggers.examples, self._beside()
        order = torch.randperm(len(triggers), generator=generator)
        for chosen in order.split(self.watermark.triggers_per_batch):
            batch = triggers.subset(chosen)
            inputs, labels = batch.inputs, batch.labels
            if self.watermark.own_per_batch:
                drawn = torch.randperm(len(beside), generator=generator)[: self.watermark.own_per_batch]
                others = beside.subset(drawn)
                inputs, labels = torch.cat([inputs, others.inputs]), torch.cat([labels, others.labels])
            yield inputs, labels

    def _beside(self) -> Examples:
        contrast = self.triggers.contrast
        if contrast is None:
            return self.own
        return Examples(torch.cat([self.own.inputs, contrast.inputs]), torch.cat([self.own.labels, contrast.labels]))
