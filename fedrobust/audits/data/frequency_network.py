"""The trained part of the frequency detector: a small network over the discrete cosine transform of a picture.

Zeng, Park, Mao, Jia, "Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective", ICCV 2021,
https://arxiv.org/abs/2104.03413
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.fft
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fedrobust.audits.audited_model import evaluation_mode
from fedrobust.training.loop import channels_last

_FORMAT = "fedrobust frequency detector 1"
_BATCH = 500


def dct(pictures: Tensor) -> Tensor:
    """The orthonormal two-dimensional DCT-II of each channel, of grey levels 0 to 255.

    Args:
        pictures: `(N, C, H, W)`, in [0, 1].

    Returns:
        `(N, C, H, W)` float32 on the CPU, low frequencies first.
    """
    levels = 255 * pictures.detach().cpu().numpy()
    return torch.from_numpy(scipy.fft.dctn(levels, type=2, norm="ortho", axes=(-2, -1)).astype(np.float32))


class FrequencyNetwork(nn.Module):
    """Convolutions over a transform, log-scaled and standardised, to one logit: how sure it is of a perturbation."""

    mean: Tensor
    std: Tensor

    def __init__(self, input_shape: tuple[int, int, int], width: int) -> None:
        """Args: the shape (C, H, W) of one picture; channels of the first convolution."""
        super().__init__()
        num_channels, height, columns = input_shape
        self.register_buffer("mean", torch.zeros(input_shape))
        self.register_buffer("std", torch.ones(input_shape))
        self.layers = nn.Sequential(
            nn.Conv2d(num_channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
            nn.Flatten(),
            nn.Linear(2 * width * -(-height // 4) * -(-columns // 4), 4 * width), nn.ReLU(),
            nn.Linear(4 * width, 1),
        )  # fmt: skip

    def fit_scale(self, transforms: Tensor) -> None:
        """Set what standardises each frequency, from clean transforms `(N, C, H, W)`."""
        scaled = signed_log(transforms)
        self.mean.copy_(scaled.mean(dim=0))
        self.std.copy_(scaled.std(dim=0).clamp_min(1e-3))

    def forward(self, transforms: Tensor) -> Tensor:
        """Logits `(B,)` of transforms `(B, C, H, W)`."""
        logits: Tensor = self.layers(channels_last((signed_log(transforms) - self.mean) / self.std))
        return logits.squeeze(1)


def signed_log(transforms: Tensor) -> Tensor:
    """sign(c) log(1 + |c|): coefficients of high frequencies are smaller by orders of magnitude."""
    return transforms.sign() * transforms.abs().log1p()


@dataclass(frozen=True, eq=False)
class TrainedFrequencyDetector:
    """A detector that is ready for use: on a data set, or on single inputs before a deployed model sees them.

    Attributes:
        network: on the CPU.
        threshold: a picture is rejected above this score.
        false_positive_rate: of clean pictures, that the threshold was calibrated for.
        input_shape: (C, H, W).
        width: of the network.
    """

    network: FrequencyNetwork
    threshold: float
    false_positive_rate: float
    input_shape: tuple[int, int, int]
    width: int

    @torch.no_grad()
    def scores(self, pictures: Tensor) -> Tensor:
        """`(N,)` float64 logits of pictures `(N, C, H, W)` in [0, 1]; larger is more suspicious.

        Raises:
            ValueError: pictures of another shape, or NaN or infinity in them.
        """
        check_pictures(pictures, self.input_shape)
        with evaluation_mode(self.network):
            scores = [self.network(dct(batch)).double() for batch in pictures.split(_BATCH)]
        return torch.cat(scores)

    def accepts(self, pictures: Tensor) -> Tensor:
        """Which pictures a deployed model may answer, `(N,)` booleans: the detector as a filter at inference."""
        return self.scores(pictures) <= self.threshold

    def save(self, path: Path | str) -> None:
        """Write a safetensors file."""
        facts = {
            "format": _FORMAT,
            "threshold": repr(self.threshold),
            "false_positive_rate": repr(self.false_positive_rate),
            "input_shape": json.dumps(self.input_shape),
            "width": str(self.width),
        }
        save_file({name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}, path, facts)

    @classmethod
    def load(cls, path: Path | str) -> "TrainedFrequencyDetector":
        """Read what `save` wrote.

        Raises:
            ValueError: no such file, or not a detector's.
        """
        try:
            with safe_open(path, framework="pt") as file:
                facts = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} cannot be read as a trained frequency detector: {error}") from None
        if facts.get("format") != _FORMAT:
            raise ValueError(f"{path} holds no trained frequency detector (format {facts.get('format')!r})")
        num_channels, height, width = json.loads(facts["input_shape"])
        network = FrequencyNetwork((num_channels, height, width), int(facts["width"]))
        network.load_state_dict(state)
        return cls(
            network.eval(),
            float(facts["threshold"]),
            float(facts["false_positive_rate"]),
            (num_channels, height, width),
            int(facts["width"]),
        )


def check_pictures(pictures: Tensor, input_shape: tuple[int, ...] | None = None) -> tuple[int, int, int]:
    """Their shape (C, H, W).

    Raises:
        ValueError: no pictures, pictures of another shape than `input_shape`, or NaN or infinity in them.
    """
    if pictures.ndim != 4:
        raise ValueError(f"FrequencyDetector reads pictures (N, C, H, W), got shape {tuple(pictures.shape)}")
    num_channels, height, width = pictures.shape[1:]
    if input_shape is not None and (num_channels, height, width) != tuple(input_shape):
        raise ValueError(
            f"the detector was trained on pictures of shape {tuple(input_shape)}, got {(num_channels, height, width)}"
        )
    if min(height, width) < 16:
        raise ValueError(f"FrequencyDetector reads pictures of at least 16x16, got {height}x{width}")
    bad = ~pictures.isfinite().flatten(1).all(dim=1)
    if bool(bad.any()):
        raise ValueError(f"inputs must be finite, rows {bad.nonzero().flatten()[:10].tolist()} hold NaN or infinity")
    return num_channels, height, width
