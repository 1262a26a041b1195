"""Runs kernels in Triton's interpreter, which must be chosen before Triton is imported: a script of its own.

    python triton_interpreted.py JOBS ANSWERS

JOBS is a saved list of (points, rows, reduction, arguments), ANSWERS will be a list of vectors, or of messages where
points were refused.
"""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from fedrobust._linalg.kernels.gpu_order_statistics import reduced_on_gpu
from fedrobust.types import UnusableUpdatesError


def main() -> None:
    answers = []
    for points, rows, reduction, arguments in torch.load(sys.argv[1]):
        try:
            answers.append(reduced_on_gpu((points,), rows, reduction, arguments, points))
        except UnusableUpdatesError as error:
            answers.append(str(error))
    torch.save(answers, sys.argv[2])


if __name__ == "__main__":
    main()
