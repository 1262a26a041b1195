"""The frequency detector: triggers leave traces at high frequencies, which a small network learns to see.

Zeng, Park, Mao, Jia, "Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective", ICCV 2021,
https://arxiv.org/abs/2104.03413
Departs: the network is smaller than the paper's and reads logarithms, standardised frequency by frequency; its
threshold is calibrated on clean pictures that it was not trained on, where the paper takes the likelier class; classes
are convicted too.
"""

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from fedrobust.audits.audited_model import AuditedModel
from fedrobust.audits.base import DataReport, require_clean
from fedrobust.audits.data.calibration import (
    FalsePositiveRate,
    calibrated_report,
    calibrated_threshold,
    smallest_calibration,
)
from fedrobust.audits.data.frequency_network import (
    FrequencyNetwork,
    TrainedFrequencyDetector,
    check_pictures,
    dct,
)
from fedrobust.audits.data.perturbations import perturb
from fedrobust.config.component import Count, Fraction, Positive, component
from fedrobust.data.examples import Examples
from fedrobust.seeds import seeded_initialisation

_CALIBRATION_FRACTION = 0.25
"""Of the clean pictures, the part that sets the threshold and is not trained on."""


@component
class FrequencyDetector:
    """Judge each picture by itself, without its label and without the model.

    Not for pictures under 16 x 16, and blind to triggers that are smooth. The threshold is one for all classes, and of
    a clean class several times `false_positive_rate` may be flagged. So a class is convicted only if more of it is
    flagged than of its own clean pictures that were not trained on, a quarter of all: with a few of each there is no
    telling. A `detector_file` comes without them, and goes by `tolerated_rate` alone.

    Attributes:
        false_positive_rate: of clean pictures, that the threshold lets be flagged.
        detector_file: a trained detector, as its `save` wrote it; `None` trains one on the clean examples.
        num_epochs: passes over the clean pictures, which are perturbed anew in each.
        batch_size: clean pictures in a step, and as many perturbed ones.
        learning_rate: of Adam.
        width: channels of the first convolution.
        tolerated_rate: a class is convicted if surely more of it is flagged, and more than of its clean pictures.
        confidence: that no class is convicted that is below `tolerated_rate`, or like its clean pictures.
    """

    false_positive_rate: FalsePositiveRate = 0.05
    detector_file: str | None = None
    num_epochs: Count = 20
    batch_size: Count = 64
    learning_rate: Positive = 1e-3
    width: Annotated[int, Ge(1)] = 16
    tolerated_rate: Fraction = 0.15
    confidence: Fraction = 0.95

    def check(self, model: AuditedModel, examples: Examples, clean: Examples) -> None:
        """Look at the size of the pictures, and whether there is a detector or enough to train one.

        Raises:
            ValueError: no pictures, too small ones, or of another size than the detector's; too few clean ones.
        """
        if self.detector_file is None:
            check_pictures(examples.inputs)
            require_clean(clean, "FrequencyDetector", self.smallest_clean)
        else:
            check_pictures(examples.inputs, TrainedFrequencyDetector.load(Path(self.detector_file)).input_shape)

    def __call__(
        self,
        examples: Examples,
        model: AuditedModel | None,
        generator: torch.Generator,
        clean: Examples | None = None,
    ) -> DataReport:
        """Score and flag; `model` is not read, `clean` only where there is no `detector_file`.

        Raises:
            ValueError: no pictures, too small ones, NaN in them, no clean ones to train on, or a file that is none.
        """
        check_pictures(examples.inputs)
        reference = None
        if self.detector_file is None:
            clean = require_clean(clean, "FrequencyDetector", self.smallest_clean)
            detector, held_out = self._fit(clean, generator)
            reference = (clean.labels.cpu()[held_out], detector.scores(clean.inputs.cpu()[held_out]))
        else:
            detector = TrainedFrequencyDetector.load(Path(self.detector_file))
        return calibrated_report(
            "frequency detector",
            examples,
            detector.scores(examples.inputs),
            detector.threshold,
            score_name="logit of a perturbation",
            tolerated_rate=self.tolerated_rate,
            confidence=self.confidence,
            reference=reference,
        )

    @property
    def smallest_clean(self) -> int:
        """How many clean pictures `train` takes at least."""
        return round(smallest_calibration(self.false_positive_rate) / _CALIBRATION_FRACTION)

    def train(self, clean: Examples, generator: torch.Generator) -> TrainedFrequencyDetector:
        """Learn to tell clean pictures from perturbed ones, three quarters of them; calibrate on the others.

        Raises:
            ValueError: fewer clean pictures than `smallest_clean`, or what is no picture.
        """
        return self._fit(clean, generator)[0]

    def _fit(self, clean: Examples, generator: torch.Generator) -> tuple[TrainedFrequencyDetector, Tensor]:
        """The detector, and the rows of the clean pictures that it was not trained on."""
        shape = check_pictures(clean.inputs)
        require_clean(clean, "FrequencyDetector", self.smallest_clean)
        order = torch.randperm(len(clean), generator=generator)
        pictures = clean.inputs.cpu()[order]
        num_held_out = round(_CALIBRATION_FRACTION * len(clean))
        held_out, pictures = pictures.tensor_split([num_held_out])
        with seeded_initialisation(int(torch.randint(2**62, (), generator=generator)), "frequency detector"):
            network = FrequencyNetwork(shape, self.width)
        transforms = dct(pictures)
        network.fit_scale(transforms)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        for _ in range(self.num_epochs):
            perturbed = dct(perturb(pictures, generator))
            for rows in torch.randperm(len(pictures), generator=generator).split(self.batch_size):
                logits = network(torch.cat([transforms[rows], perturbed[rows]]))
                truth = torch.cat([torch.zeros(len(rows)), torch.ones(len(rows))])
                optimizer.zero_grad()
                F.binary_cross_entropy_with_logits(logits, truth).backward()
                optimizer.step()
        detector = TrainedFrequencyDetector(network.eval(), 0.0, self.false_positive_rate, shape, self.width)
        threshold = calibrated_threshold(detector.scores(held_out), self.false_positive_rate)
        calibrated = TrainedFrequencyDetector(network, threshold, self.false_positive_rate, shape, self.width)
        return calibrated, order[:num_held_out]
