"""How much faster trigger inversion is for all labels together than label by label.

Writes README.md beside this file. See there for the claim, the commands and the last result.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

# As the command `fedrobust` does, before torch is imported: no threads that spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import Tensor

from fedrobust.audits import AuditedModel
from fedrobust.audits.model import TriggerInversion
from fedrobust.models import MLP, Architecture, SmallCNN
from fedrobust.seeds import seeded_initialisation, torch_generator
from fedrobust.study import hardware, markdown_table, marked_sections, median_and_range, seconds_in_turns

README = Path(__file__).with_name("README.md")
NUM_EXAMPLES = 200


@dataclass(frozen=True)
class Case:
    """A row of the table; `claim` is the least speed-up that is promised."""

    name: str
    architecture: Architecture
    input_shape: tuple[int, int, int]
    num_labels: int
    claim: float | None = None
    num_checks: int = 20


CPU_CASES = [
    Case("mlp [128, 64], 1x8x8, 10 labels", MLP(), (1, 8, 8), 10, 3.0),
    Case("mlp [128, 64], 1x28x28, 10 labels", MLP(), (1, 28, 28), 10),
    Case("small_cnn, 3x32x32, 43 labels", SmallCNN(), (3, 32, 32), 43, num_checks=1),
]
GPU_CASES = [
    Case("small_cnn, 3x32x32, 43 labels", SmallCNN(), (3, 32, 32), 43, 10.0),
    Case("mlp [128, 64], 1x8x8, 10 labels", MLP(), (1, 8, 8), 10),
]


@dataclass(frozen=True)
class Work:
    """A model, examples, and settings that no label leaves early: every repetition does all steps."""

    case: Case
    model: AuditedModel
    inputs: Tensor
    settings: TriggerInversion

    @classmethod
    def of(cls, case: Case, device: torch.device) -> "Work":
        """Random weights and pictures: nothing measured here depends on their values."""
        with seeded_initialisation(0, "model"):
            module = case.architecture.build(case.input_shape, case.num_labels).to(device)
        inputs = torch.rand(NUM_EXAMPLES, *case.input_shape, generator=torch_generator(0, "pictures")).to(device)
        settings = TriggerInversion(num_checks=case.num_checks, max_stale=10**6)
        return cls(case, AuditedModel(module.eval(), lambda one: (one - 0.5) / 0.25), inputs, settings)

    def inverted(self, together: int) -> Tensor:
        """The masks of all labels."""
        settings = replace(self.settings, together=together)
        return settings(self.model, self.inputs, self.case.num_labels, torch_generator(0, "audit")).masks

    def plain_loop(self) -> Tensor:
        """The same steps and checks as anyone would write them, without this package: one mask, torch's Adam."""
        masks, settings, device = [], self.settings, self.inputs.device
        for label in range(self.case.num_labels):
            start = torch.rand(1 + self.case.input_shape[0], *self.case.input_shape[1:]).to(device)
            logits = torch.atanh((2 * start - 1) * (1 - 1e-7))
            mask_logits, pattern_logits = logits[0].clone().requires_grad_(), logits[1:].clone().requires_grad_()
            optimizer = torch.optim.Adam([mask_logits, pattern_logits], lr=settings.learning_rate, betas=(0.5, 0.9))
            weight, ups, downs = settings.initial_weight, 0, 0
            wanted = torch.full((settings.batch_size,), label, device=device)
            for _ in range(settings.num_checks):
                for _ in range(settings.num_steps):
                    batch = self.inputs[torch.randint(NUM_EXAMPLES, (settings.batch_size,)).to(device)]
                    mask, pattern = mask_logits.tanh() / 2 + 0.5, pattern_logits.tanh() / 2 + 0.5
                    stamped = self.model.normalise((1 - mask) * batch + mask * pattern)
                    loss = F.cross_entropy(self.model.module(stamped), wanted) + weight * mask.sum()
                    optimizer.zero_grad()
                    loss.backward(inputs=[mask_logits, pattern_logits])
                    optimizer.step()
                with torch.no_grad():
                    mask, pattern = mask_logits.tanh() / 2 + 0.5, pattern_logits.tanh() / 2 + 0.5
                    stamped = self.model.normalise((1 - mask) * self.inputs + mask * pattern)
                    rate = float((self.model.module(stamped).argmax(dim=1) == label).double().mean())
                ups, downs = (ups + 1, 0) if rate >= settings.success_rate else (0, downs + 1)
                if ups == settings.patience:
                    weight, ups = weight * 2, 0
                if downs == settings.patience:
                    weight, downs = weight / 2**1.5, 0
            masks.append(mask)
        return torch.stack(masks)


def measure(case: Case, device: torch.device, repeats: int) -> list[list[float]]:
    """Seconds of the plain loop, label by label, and together, which take turns."""
    work = Work.of(case, device)
    # The first check alone: later ones amplify what float32 rounds differently.
    first = replace(work, settings=replace(work.settings, num_checks=1))
    distance = float((first.inverted(case.num_labels) - first.inverted(1)).abs().max())
    if distance > 1e-4:
        raise SystemExit(f"{case.name}: the two ways differ by {distance:.1e}")
    ways: list[Callable[[], object]] = [
        work.plain_loop, lambda: work.inverted(1), lambda: work.inverted(case.num_labels),
    ]  # fmt: skip
    return seconds_in_turns(ways, repeats, device)


def table_row(case: Case, columns: list[list[float]]) -> list[str]:
    plain, alone, together = columns
    ratios = [[one / other for one, other in zip(slow, together, strict=True)] for slow in (alone, plain)]
    steps = case.num_checks * 10
    return [
        case.name,
        *(median_and_range([1e3 * seconds / steps for seconds in column], 2) for column in columns),
        f"**{median_and_range(ratios[0], 1)}**",
        median_and_range(ratios[1], 1),
        "" if case.claim is None else f"at least {case.claim:g}",
    ]


def section(device: torch.device, repeats: int) -> str:
    measured_on = hardware(device)
    rows = []
    for case in GPU_CASES if device.type == "cuda" else CPU_CASES:
        rows.append(table_row(case, measure(case, device, repeats)))
        print(*rows[-1], sep=" | ", flush=True)
    heads = ["model", "plain loop, ms", "label by label, ms", "together, ms", "speed-up", "over the plain loop"]
    return f"{measured_on}; {repeats} repetitions.\n\n{markdown_table([*heads, 'claim'], rows)}"


def write_readme(kind: str, text: str) -> None:
    """Put `text` between the marks of its device, and leave the other device's result as it is."""
    old = README.read_text() if README.exists() else ""
    results = marked_sections(old, ("cpu", "cuda"), {kind: text})
    README.write_text(f"""# Trigger inversion, all labels together

Claim: Neural Cleanse inverts the triggers of all 10 labels of the default mlp at least 3 times as fast together
(`inversion.together=10`) as label by label (`inversion.together=1`) on a CPU, and those of 43 labels of a convolutional
network at least 10 times as fast on a GPU.

    python benchmarks/neural_cleanse/run.py
    python benchmarks/neural_cleanse/run.py --device cuda

Times are those of one step of Adam for all labels, batches of 32, and of the checks of success on {NUM_EXAMPLES}
examples after every 10 steps. *Plain loop* is the same work without this package, one mask and `torch.optim.Adam`, to
show that label by label is no straw man. The three take turns in one process; figures are medians (minimum to maximum),
*speed-up* is label by label over together within a turn. The two ways are first checked to give the same masks.
Labels are folded into the batch, as they share the network: that is what `torch.func.vmap` comes to, without its cost
for each operation. Convolutions gain nothing from it on a CPU, where one label's batch fills the cache: there
`inversion.together=auto`, the default, inverts them label by label.

## CPU

{results["cpu"]}

## GPU

{results["cuda"]}
""")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    write_readme(device.type, section(device, arguments.repeats))


if __name__ == "__main__":
    main()
