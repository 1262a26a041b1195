"""What attackers know in tests: random updates, in float64 so that oracles agree to the last digits."""

import torch
from torch import Tensor

from fedrobust.attacks import Knowledge
from fedrobust.seeds import torch_generator


def random_updates(n: int, d: int, *, shift: float = 0.3, seed: int = 0) -> Tensor:
    """N(shift, 1), `(n, d)` float64, columns of different spread."""
    noise = torch.randn(n, d, generator=torch_generator(seed, "test updates", n, d), dtype=torch.float64)
    return shift + noise * torch.linspace(0.5, 2.0, d, dtype=torch.float64)


def known(own: Tensor, benign: Tensor | None = None, *, num_clients: int | None = None, **more: object) -> Knowledge:
    """Knowledge of `own` `(m, d)` and, if given, of `benign` `(k, d)` updates; all clients weigh the same."""
    n = num_clients or len(own) + (0 if benign is None else len(benign))
    if benign is not None:
        more |= {
            "benign_updates": benign,
            "benign_weights": torch.full((len(benign),), 1 / n, dtype=torch.float64),
            "benign_clients": tuple(range(len(own), n)),
        }
    return Knowledge(own, torch.full((len(own),), 1 / n, dtype=torch.float64), 1.0, n, **more)
