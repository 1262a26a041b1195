"""torch modules as scikit-learn estimators that know their per-sample gradients."""

import copy
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from fedrobust.statistics.sever.module_gradients import Loss, module_gradients
from fedrobust.statistics.sever.per_sample_gradients import Floats

OptimizerFactory: TypeAlias = Callable[[Iterable[Tensor]], torch.optim.Optimizer]
"""From parameters to an optimiser of them."""


class _ModuleEstimator(BaseEstimator):  # type: ignore[misc]
    """Full-batch training of a copy of a module, from the parameters that it has: the same data give the same model."""

    def __init__(
        self,
        module: nn.Module,
        *,
        loss: Loss | None = None,
        optimizer: OptimizerFactory | None = None,
        num_steps: int = 100,
        weight_decay: float = 0.0,
        chunk_size: int | None = None,
    ) -> None:
        self.module = module
        self.loss = loss
        self.optimizer = optimizer
        self.num_steps = num_steps
        self.weight_decay = weight_decay
        self.chunk_size = chunk_size

    def _train(self, X: Any, targets: Tensor) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps!r}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay!r}")
        module = copy.deepcopy(self.module)
        parameters = [value for value in module.parameters() if value.requires_grad]
        optimizer = (self.optimizer or _lbfgs)(parameters)
        loss, inputs = self._loss(), _inputs(module, X)

        def closure() -> Tensor:
            optimizer.zero_grad()
            penalty = sum(value.square().sum() for value in parameters)
            objective = loss(module(inputs), targets) + self.weight_decay / 2 * penalty
            objective.backward()
            return objective

        module.train()
        for _ in range(self.num_steps):
            optimizer.step(closure)  # type: ignore[arg-type]
        module.eval()
        self.module_ = module

    def _outputs(self, X: Any) -> Tensor:
        check_is_fitted(self, "module_")
        with torch.no_grad():
            outputs: Tensor = self.module_(_inputs(self.module_, validate_data(self, X, reset=False)))
        return outputs

    def per_sample_gradients(self, X: Any, y: Any) -> Floats:
        """The gradient of each sample's loss by the module's parameters, `(n, D)`; the weight decay's is left out."""
        check_is_fitted(self, "module_")
        inputs = _inputs(self.module_, X)
        found = module_gradients(
            self.module_, self._loss(), inputs, self._targets(y, inputs), chunk_size=self.chunk_size
        )
        return np.asarray(found.cpu().numpy(), dtype=np.float64)

    def _loss(self) -> Loss:
        raise NotImplementedError

    def _targets(self, y: Any, inputs: Tensor) -> Tensor:
        raise NotImplementedError


class ModuleRegressor(RegressorMixin, _ModuleEstimator):  # type: ignore[misc]
    """A torch module that is fitted by full-batch training, as a regressor.

    Args:
        module: from `(n, d)`, in the module's own precision and on its device, to `(n, 1)`. A copy of it is trained,
            from its parameters.
        loss: mean loss of a batch; `None` for half the mean squared error. It sees outputs and targets `(n, 1)`.
        optimizer: makes an optimiser of the parameters; `None` for L-BFGS with a strong Wolfe line search.
        num_steps: steps of the optimiser.
        weight_decay: λ of the penalty λ/2·‖θ‖².
        chunk_size: samples at a time for the gradients, where memory is short.

    Attributes:
        module_: the trained copy.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on `X` `(n, d)` and `y` `(n,)`."""
        X, y = validate_data(self, X, y, y_numeric=True)
        self._train(X, self._targets(y, _inputs(self.module, X)))
        return self

    def predict(self, X: Any) -> Floats:
        """The module's outputs, `(m,)`."""
        return np.asarray(self._outputs(X).reshape(-1).cpu().numpy())

    def _loss(self) -> Loss:
        return self.loss or _half_squared_error

    def _targets(self, y: Any, inputs: Tensor) -> Tensor:
        return torch.as_tensor(np.asarray(y), dtype=inputs.dtype, device=inputs.device).reshape(-1, 1)


class ModuleClassifier(ClassifierMixin, _ModuleEstimator):  # type: ignore[misc]
    """A torch module that is fitted by full-batch training, as a classifier.

    Args:
        module: from `(n, d)`, in the module's own precision and on its device, to `(n, k)` logits of the k labels in
            ascending order. A copy of it is trained, from its parameters.
        loss: mean loss of a batch; `None` for the cross-entropy. It sees logits and the labels' positions `(n,)`.
        optimizer: makes an optimiser of the parameters; `None` for L-BFGS with a strong Wolfe line search.
        num_steps: steps of the optimiser.
        weight_decay: λ of the penalty λ/2·‖θ‖².
        chunk_size: samples at a time for the gradients, where memory is short.

    Attributes:
        module_: the trained copy.
        classes_: the labels.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on `X` `(n, d)` and labels `y` `(n,)`."""
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        self._train(X, self._targets(y, _inputs(self.module, X)))
        return self

    def predict(self, X: Any) -> Any:
        """The most probable labels, `(m,)`."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_proba(self, X: Any) -> Floats:
        """The softmax of the logits, `(m, k)`."""
        return np.asarray(self._outputs(X).softmax(dim=1).cpu().numpy())

    def _loss(self) -> Loss:
        return self.loss or nn.functional.cross_entropy

    def _targets(self, y: Any, inputs: Tensor) -> Tensor:
        return torch.as_tensor(np.searchsorted(self.classes_, y), device=inputs.device)


def _inputs(module: nn.Module, X: Any) -> Tensor:
    parameter = next(module.parameters())
    return torch.as_tensor(np.asarray(X), dtype=parameter.dtype, device=parameter.device)


def _half_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean() / 2


def _lbfgs(parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    # The defaults stop at four digits.
    return torch.optim.LBFGS(parameters, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe")
