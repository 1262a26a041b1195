"""How often each audit convicts a class of clean data or of a clean model, and what it finds on Fashion-MNIST.

    FEDROBUST_DATA=FOLDER python experiments/audits/clean_rates/run.py [--parts chosen clean poisoned]
    python experiments/audits/clean_rates/run.py --quick

Needs MNIST and Fashion-MNIST below the data root. Writes `results/PART.jsonl`, one line a model and audit, and goes on
with unfinished parts; then README.md from all that there are (`--report` does only that). `--quick` audits two clean
models and writes nothing.
"""

import json
from functools import partial
from pathlib import Path

import torch
from cases import AUDITS, TRIGGERS, measure
from report import write_readme

from fedrobust.study import measure_cells, study_parser

HERE = Path(__file__).parent
CHOSEN, HELD_OUT, TEN = range(5), range(101, 106), range(101, 111)
PARTS = {
    "chosen": [("digits", None, 0.0, seed) for seed in CHOSEN],
    "clean": [
        (name, None, 0.0, seed)
        for name, seeds in (("digits", TEN), ("breast_cancer", TEN), ("Fashion-MNIST", HELD_OUT), ("MNIST", HELD_OUT))
        for seed in seeds
    ],
    "poisoned": [
        ("Fashion-MNIST", trigger, rate, seed)
        for seed in (101, 102, 103)
        for trigger in TRIGGERS
        for rate in (0.04, 0.1)
    ],
}
"""Those that the method was chosen on, and those that nothing was chosen on: data set, trigger, poison rate, seed."""


def main() -> None:
    parser = study_parser(__doc__, quick="two clean models", data="MNIST and Fashion-MNIST")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--report", action="store_true", help="write README.md from results/ alone")
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads would wait for one another longer than so small a network takes
    measure_one = partial(measure, root=options.data_root)
    names = ("dataset", "trigger", "rate", "seed", "audit")
    if options.quick:
        cells = [(name, None, 0.0, 101, audit) for name in ("digits", "breast_cancer") for audit in AUDITS]
        for row in measure_cells(names, cells, measure_one, description="clean rates").values():
            print(json.dumps(row, indent=1))
        return
    (HERE / "results").mkdir(exist_ok=True)
    for part in [] if options.report else options.parts:
        path = HERE / "results" / f"{part}.jsonl"
        cells = [(*case, audit) for case in PARTS[part] for audit in AUDITS]
        measure_cells(names, cells, measure_one, path=path, description=part)
    write_readme(HERE, names)


if __name__ == "__main__":
    main()
