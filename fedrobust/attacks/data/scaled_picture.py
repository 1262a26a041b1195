"""A picture that becomes another when it is scaled: the image-scaling attack on one picture.

Xiao, Chen, Shen, Chen, Li, "Seeing is Not Believing: Camouflage Attacks on Image Scaling Algorithms", USENIX Security
2019, https://www.usenix.org/conference/usenixsecurity19/presentation/xiao
Departs: as in the paper one axis is solved after the other, but the columns of an axis all at once, in the dual; part
of ε is kept for the rounding of the pixels and of the scaler's own answer. Targets are rounded to bytes first, so that
where the scaler's answers are none the result may be half a byte farther from them than ε.
"""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from fedrobust.config.component import FieldError
from fedrobust.data.scalers import Plane, Scaler, to_bytes

_MAX_STEPS = 3000
_SLACK = 0.02
"""In units of a byte: how far columns may be beyond their tolerance, and still move, when they count as solved."""


def hide(sources: Tensor, targets: Tensor, scaler: Scaler, epsilon: float = 0.01) -> Tensor:
    """Pictures that look like `sources` and scale to `targets`.

    min ‖Δ‖² subject to |C_L (S + Δ) C_R - T| <= ε 255 and 0 <= S + Δ <= 255, for every picture and channel.

    Args:
        sources: S `(N, C, H, W)` in [0, 1].
        targets: T `(N, C, h, w)` in [0, 1].
        scaler: to `(h, w)`.
        epsilon: ε.

    Returns:
        `(N, C, H, W)`, whole bytes over 255.

    Raises:
        FieldError: an ε that the rounding of pixels alone exceeds.
    """
    left, right = scaler.matrices(*sources.shape[-2:])
    norms = [float(np.abs(one).sum(axis=1).max()) for one in (left, right.T)]
    rounding = 0.5 * norms[0] * norms[1] + (1.0 if scaler.scales_bytes else 0.0)
    left_over = 255 * epsilon - rounding
    if left_over <= 0:
        raise FieldError("epsilon", f"must be above {rounding / 255:.4f}, what rounding takes, got {epsilon}")
    source = 255 * sources.detach().double().cpu().numpy()
    target = to_bytes(targets).transpose(0, 3, 1, 2).astype(np.float64)
    # First the columns: what the rows must come to, once they are scaled; then each row by itself.
    narrow = source @ right
    tall = _columns(nearest(left, _as_columns(narrow), _as_columns(target), left_over / 2), narrow.shape)
    turned = [one.swapaxes(-1, -2) for one in (source, tall)]
    solved = nearest(right.T, _as_columns(turned[0]), _as_columns(turned[1]), left_over / (2 * norms[0]))
    pictures = _columns(solved, turned[0].shape).swapaxes(-1, -2)
    return torch.from_numpy(np.ascontiguousarray(pictures)).round_().div_(255).to(sources)


def nearest(weights: Plane, source: Plane, target: Plane, tolerance: float) -> Plane:
    """Each column of `source` `(n, m)`, changed as little as makes `weights` `(k, n)` times it `target` `(k, m)`.

    min ‖A - S‖² subject to |C A - T| <= tolerance and 0 <= A <= 255, by accelerated proximal ascent in the dual, with a
    step for each row of C; columns that are solved drop out.
    """
    matrix = csr_array(weights)
    steps = 1 / np.abs(weights @ weights.T).sum(axis=1)[:, None]  # the dual's curvature is at most this, row by row
    answer = np.clip(source, 0, 255)
    active = np.flatnonzero((np.abs(matrix @ answer - target) > tolerance).any(axis=0))
    dual = np.zeros((len(weights), len(active)))
    ahead, momentum, last = dual, 1.0, answer[:, active]
    for _ in range(_MAX_STEPS):
        if len(active) == 0:
            break
        reached = np.clip(source[:, active] + matrix.T @ ahead, 0, 255)
        raised = ahead + steps * (target[:, active] - matrix @ reached)
        moved = np.sign(raised) * np.maximum(np.abs(raised) - steps * tolerance, 0)
        # Restarted where the last step went downhill, which keeps the acceleration from swinging.
        uphill = ((moved - dual) * (moved - ahead)).sum(axis=0) >= 0
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = moved + np.where(uphill, (momentum - 1) / following, 0.0) * (moved - dual)
        dual, momentum = moved, following
        current = np.clip(source[:, active] + matrix.T @ dual, 0, 255)
        excess = np.abs(matrix @ current - target[:, active]).max(axis=0) - tolerance
        open_ = (excess > _SLACK) | (np.abs(current - last).max(axis=0) > _SLACK)
        answer[:, active] = current
        active, dual, ahead, last = active[open_], dual[:, open_], ahead[:, open_], current[:, open_]
    return answer


def psnr(pictures: Tensor, sources: Tensor) -> Tensor:
    """Peak signal-to-noise ratio `(N,)` of pictures `(N, ...)` in [0, 1], in dB: the larger, the less shows."""
    squared = (pictures.double() - sources.double()).square().flatten(1).mean(dim=1)
    return -10 * squared.log10()


def _as_columns(planes: Plane) -> Plane:
    """`(N, C, rows, columns)` as `(rows, N C columns)`."""
    return np.moveaxis(planes, 2, 0).reshape(planes.shape[2], -1)


def _columns(flat: Plane, shape: tuple[int, ...]) -> Plane:
    """Back from `_as_columns`."""
    num, channels, rows, columns = shape
    return np.moveaxis(flat.reshape(rows, num, channels, columns), 0, 2)
