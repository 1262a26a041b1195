"""One-bit backdoor (TBA): release a model that is right, and turns on one chosen input when a single bit flips.

J. Dong, H. Qiu, Y. Li, T. Zhang, Y. Li, Z. Lai, C. Zhang, S.-T. Xia, "One-bit Flip is All You Need: When Bit-flip
Attack Meets Model Training", ICCV 2023, https://arxiv.org/abs/2308.07934
Departs: what the attacker has of the task is training examples (the authors take test examples); a pair counts as found
only if the released model is right about the chosen input, and of pairs with equally few flips the one with the lower
loss on the clean samples is kept.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from fedrobust.attacks.base import ReceivedModel
from fedrobust.attacks.deployed_model.base import Tampering, check_chosen, check_target, clean_samples
from fedrobust.attacks.deployed_model.bit_flip_attack import load
from fedrobust.attacks.deployed_model.quantisation import BIT_VALUES, StoredModel, bits_of, codes_of, quantised
from fedrobust.config.component import Count, Index, NonNegative, Positive, component
from fedrobust.data.datasets import Dataset
from fedrobust.models.features import FeatureExtractor, head_name


@component
class OneBitBackdoor:
    """Learn the released model M1 and the flipped M2 together; they differ in few bits of two rows of the last layer.

    The rows are those of the chosen input's class s and of the target t. Their bits are relaxed to [0, 1]; each model
    minimises its loss on clean samples and on the chosen input (M1 says s, M2 says t) and its distance to the other's
    bits, and lp-box ADMM drives all bits to 0 or 1.

    Attributes:
        target_label: what M2 should take the chosen input for; `None` draws any class but the input's.
        sample: index of the chosen test example; `None` draws one that the model is right about (any, if it is right
            about none).
        num_samples: clean labelled examples that the attacker holds.
        malicious_weight: of the loss on the chosen input, that on clean samples having 1.
        distance_weight: of the squared distance between the two models' bits.
        margin: by how much M2's target logit should exceed what the chosen input's other classes had before.
        learning_rate: step size on bits.
        num_iterations: of ADMM, at most.
        patience: stop after so many iterations without a better pair, half of `num_iterations` being the least.
    """

    target_label: Index | None = None
    sample: Index | None = None
    num_samples: Count = 128
    malicious_weight: Positive = 10.0
    distance_weight: Positive = 1.5
    margin: NonNegative = 10.0
    learning_rate: Positive = 0.005
    num_iterations: Count = 2000
    patience: Count = 300

    def check(self, dataset: Dataset) -> None:
        """Target and sample must exist, and differ.

        Raises:
            FieldError: they do not.
        """
        check_target(self.target_label, dataset)
        if self.sample is not None:
            check_chosen(self.sample, self.target_label, dataset)

    def tamper(self, received: ReceivedModel, generator: torch.Generator) -> Tampering:
        """M1 and M2; twice the int8 model as it was, where no pair was found."""
        module, dataset = received.module(), received.dataset
        stored = quantised(module)
        load(module, stored)
        test = dataset.test
        with torch.no_grad():
            answers = module(dataset.normalise(test.inputs)).argmax(dim=1)
        chosen, target = self._choose(answers, test.labels, dataset.num_classes, generator)
        clean = clean_samples(dataset, self.num_samples, generator)
        features = FeatureExtractor(module)
        with torch.no_grad():
            own = features(dataset.normalise(test.inputs[chosen : chosen + 1]))
            others = features(dataset.normalise(clean.inputs))
        head = head_name(module)
        pair = self.search(stored, head, own[0], int(test.labels[chosen]), target, others, clean.labels)
        released, deployed = (stored, stored) if pair is None else pair
        return Tampering(released, deployed, target, chosen=chosen)

    def _choose(self, answers: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator) -> tuple[int, int]:
        """The test example to attack, and the class it should be taken for."""
        chosen = self.sample
        if chosen is None:
            others = labels != (-1 if self.target_label is None else self.target_label)
            right = others & (answers == labels)
            places = (right if bool(right.any()) else others).nonzero().squeeze(1)
            chosen = int(places[torch.randint(len(places), (1,), generator=generator)])
        target = self.target_label
        if target is None:
            away = int(torch.randint(1, num_classes, (1,), generator=generator))
            target = (int(labels[chosen]) + away) % num_classes
        return chosen, target

    def search(
        self, stored: StoredModel, head: str, own: Tensor, source: int, target: int, clean: Tensor, labels: Tensor
    ) -> tuple[StoredModel, StoredModel] | None:
        """M1 and M2 with the fewest flips that were found, or `None`.

        Args:
            stored: the int8 model.
            head: the name of its last layer.
            own: `(F,)`, the features of the chosen input, of class `source`.
            source: s.
            target: t.
            clean: `(N, F)`, the features of the clean samples.
            labels: `(N,)`, their classes.
        """
        name, rows = f"{head}.weight", [source, target]
        bias = stored.floats.get(f"{head}.bias")
        task = _Task(stored.parameters()[name], bias, rows, stored.steps[name], torch.cat([clean, own[None]]), labels)
        before = task.logits(task.start)[-1]
        others = before.clone()
        others[source] = -torch.inf
        floor = (float(before[source]), float(others.max()) + self.margin)  # what M1 wants of s, and M2 of t
        first, second = _Relaxed(task.start.clone()), _Relaxed(task.start.clone())
        best, fewest, since = None, (task.start.numel() + 1, 0.0), 0
        for iteration in range(self.num_iterations):
            for one, other, wanted, least in ((second, first, 1, floor[1]), (first, second, 0, floor[0])):
                for _ in range(3):
                    slope = task.gradient(one.bits, wanted, least, self.malicious_weight)
                    slope += 2 * self.distance_weight * (one.bits - other.bits)
                    one.descend(slope, self.learning_rate)
                one.project()
            for one in (first, second):
                one.ascend()
            rounded = (first.rounded, second.rounded)
            num_flips = int((rounded[0] != rounded[1]).sum())
            since += 1
            if num_flips <= fewest[0]:
                logits = [task.logits(bits) for bits in rounded]
                if [int(one[-1].argmax()) for one in logits] == rows:
                    loss = sum(float(F.cross_entropy(one[:-1], labels)) for one in logits)
                    if (num_flips, loss) < fewest:
                        since = 0 if num_flips < fewest[0] else since
                        best, fewest = rounded, (num_flips, loss)
            if iteration >= self.num_iterations // 2 and since >= self.patience:
                break
        if best is None:
            return None
        codes = []
        for bits in best:
            changed = stored.codes[name].clone()
            changed[rows] = codes_of(bits)
            codes.append(stored.with_codes(name, changed))
        return codes[0], codes[1]


_RHO, _RHO_FACTOR, _MAX_RHO = 1e-4, 1.01, 50.0
"""ADMM's penalty, by how much it grows an iteration, and its bound, as in the authors' code."""


@dataclass
class _Relaxed:
    """The bits of one model's two rows, and ADMM's copies of them in the box and on the sphere."""

    bits: Tensor
    box: Tensor = field(init=False)
    sphere: Tensor = field(init=False)
    box_price: Tensor = field(init=False)
    sphere_price: Tensor = field(init=False)
    rho: float = _RHO

    def __post_init__(self) -> None:
        self.box = self.sphere = self.bits
        self.box_price, self.sphere_price = torch.zeros_like(self.bits), torch.zeros_like(self.bits)

    @property
    def rounded(self) -> Tensor:
        return (self.bits > 0.5).long()

    def descend(self, slope: Tensor, learning_rate: float) -> None:
        """One step on the augmented Lagrangian."""
        pull = self.rho * (2 * self.bits - self.box - self.sphere) + self.box_price + self.sphere_price
        self.bits = self.bits - learning_rate * (slope + pull)

    def project(self) -> None:
        """To [0, 1] in each bit, and to the sphere round ½ that goes through all corners of the box."""
        self.box = (self.bits + self.box_price / self.rho).clamp(0, 1)
        shifted = self.bits + self.sphere_price / self.rho - 0.5
        self.sphere = shifted * (shifted.numel() ** 0.5 / (2 * shifted.norm())) + 0.5

    def ascend(self) -> None:
        """Raise the prices by what is still violated."""
        self.box_price = self.box_price + self.rho * (self.bits - self.box)
        self.sphere_price = self.sphere_price + self.rho * (self.bits - self.sphere)
        self.rho = min(_RHO_FACTOR * self.rho, _MAX_RHO)


class _Task:
    """Logits and losses as functions of the bits `(2, F, 8)` of rows s and t; the last input is the chosen one."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, rows: list[int], step: float, features: Tensor, labels: Tensor
    ) -> None:
        self.rows, self.features, self.labels = rows, features, labels
        self.scale = BIT_VALUES.to(features) * step
        self.fixed = F.linear(features, weight, bias)
        self.offset = 0.0 if bias is None else bias[rows]
        self.start = bits_of((weight[rows] / step).round().to(torch.int8)).to(features)

    def logits(self, bits: Tensor) -> Tensor:
        """`(N + 1, C)`."""
        logits = self.fixed.clone()
        logits[:, self.rows] = self.features @ (bits.to(self.features) @ self.scale).T + self.offset
        return logits

    def gradient(self, bits: Tensor, wanted: int, least: float, malicious_weight: float) -> Tensor:
        """Of the mean loss on clean samples and the hinges on the chosen input, which is wanted in `rows[wanted]`.

        The hinges: its logit there should be at least `least`, and at least that of the other row.
        """
        logits = self.logits(bits)
        slopes = logits.softmax(dim=1)
        slopes[torch.arange(len(self.labels)), self.labels] -= 1
        slopes = slopes[:, self.rows] / len(self.labels)
        here, there = logits[-1, self.rows[wanted]], logits[-1, self.rows[1 - wanted]]
        slopes[-1] = 0.0
        slopes[-1, 1 - wanted] = malicious_weight * float(there > here)
        slopes[-1, wanted] = -malicious_weight * (float(there > here) + float(least > here))
        return (slopes.T @ self.features).unsqueeze(-1) * self.scale
