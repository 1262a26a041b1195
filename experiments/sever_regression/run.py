"""Sever on ridge regression (drug discovery data) against the authors' attack, beside the rivals of the paper.

    python experiments/sever_regression/run.py [--data-root FOLDER] [--seeds 0 1 2 3 4] [--quick]

Needs `sever/qsar.mat` below the data root (FEDROBUST_DATA). Writes `README.md`, `results.json` and `errors.png`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import scipy.io
from defences import MatlabRidge, attack, errors, mean_squared_error
from report import write_report
from rich.progress import track

from fedrobust.data.files import find_data_root
from fedrobust.seeds import numpy_generator
from fedrobust.statistics.sever.per_sample_gradients import Floats

HERE = Path(__file__).parent
OPTIONS = {1: 3.0, 2: 1.0}
"""The authors' option numbers, and their s, what the corrupted targets are the negative of."""

EPSILONS = tuple(round(0.01 * k, 2) for k in range(11))


def read_molecules(root: Path) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Training and test samples: binary features `(n, 410)` and activities `(n,)`."""
    data = scipy.io.loadmat(root / "sever" / "qsar.mat")
    train, test = (
        (data[f"X_{part}"].astype(np.float64), data[f"y_{part}"].ravel().astype(np.float64))
        for part in ("train", "test")
    )
    return train, test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=None, help="default: FEDROBUST_DATA")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--quick", action="store_true", help="ε = 0.05 and 0.1, one seed, nothing written")
    options = parser.parse_args()
    train, test = read_molecules(find_data_root(options.data_root))
    features, y = train
    clean = mean_squared_error(MatlabRidge().fit(features, y), *test)
    print(f"clean test error {clean:.4f}")
    epsilons, seeds = ((0.05, 0.1), [0]) if options.quick else (EPSILONS, options.seeds)
    rows = []
    for option, epsilon, seed in track(
        [(option, epsilon, seed) for option in OPTIONS for epsilon in epsilons for seed in seeds], description="ridge"
    ):
        num_corrupted = int(np.floor(epsilon * len(y)))
        poisoned = train
        if num_corrupted:
            generator = numpy_generator(seed, "attack", option, str(epsilon))
            bad = attack(features, y, num_corrupted, OPTIONS[option], generator)
            poisoned = np.vstack([features, bad[0]]), np.concatenate([y, bad[1]])
        rows.append({"option": option, "epsilon": epsilon, "seed": seed, "errors": errors(poisoned, test, epsilon)})
        if options.quick:
            print(rows[-1])
    if not options.quick:
        (HERE / "results.json").write_text(json.dumps({"clean": clean, "rows": rows}, indent=1) + "\n")
        write_report(HERE, clean, rows)


if __name__ == "__main__":
    main()
