"""A trigger for feature vectors: some features are set to fixed values.

Severi, Meyer, Coull, Oprea, "Explanation-Guided Backdoor Poisoning Attacks Against Malware Classifiers", USENIX
Security 2021, https://www.usenix.org/conference/usenixsecurity21/presentation/severi
"""

import torch
from torch import Tensor

from fedrobust.config.component import FieldError, Index, component


@component
class FeatureTrigger:
    """Feature `features[i]` becomes `values[i]`, in its own units.

    Raises:
        FieldError: no features, a feature twice, or not one value for each.
    """

    features: list[Index]
    values: list[float]

    def __post_init__(self) -> None:
        """Check that each feature has one value."""
        if not self.features or len(set(self.features)) != len(self.features):
            raise FieldError("features", f"must list at least one feature and none twice, got {self.features}")
        if len(self.values) != len(self.features):
            raise FieldError("values", f"must hold one value for each feature, got {len(self.values)} values")

    def check(self, input_shape: tuple[int, ...]) -> None:
        """Check that inputs are vectors that have these features.

        Raises:
            FieldError: they are not, or have not.
        """
        if len(input_shape) != 1:
            raise FieldError("trigger", f"must be used on feature vectors (F,), got inputs of shape {input_shape}")
        if max(self.features) >= input_shape[0]:
            raise FieldError("trigger.features", f"must be below {input_shape[0]}, got {max(self.features)}")

    def stamp(self, inputs: Tensor) -> Tensor:
        """Stamp raw features `(..., F)`; returns a new tensor."""
        stamped = inputs.clone()
        stamped[..., self.features] = torch.tensor(self.values, dtype=torch.float64).to(inputs)
        return stamped
