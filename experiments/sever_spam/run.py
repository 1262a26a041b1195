"""Sever on the Enron spam filter against the authors' 480 poisoning attacks.

    python experiments/sever_spam/run.py [--data-root FOLDER] [--quick] [--processes 2]

Needs `sever/enron_data.mat` and `sever/enron_attacks.tar.gz` below the data root (FEDROBUST_DATA). Writes a line to
`results.jsonl` for each attack, where an interrupted run goes on, then `README.md` and `errors.png`.
"""

import argparse
import io
import json
import os
import re
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from defences import NUM_ROUNDS, Mail, errors
from joblib import Parallel, delayed
from report import write_report
from rich.progress import track

from fedrobust.data.files import find_data_root

HERE = Path(__file__).parent
FOLDER = re.compile(r"enron/eps-(\d+)_wd-9_(exact_L2(?:_grad)?)_rep-2_all_attacks/(\d+)\.mat")
CLEAN_RATIO = 4137 / 1209
"""The authors' N/n₊, of the clean training mails."""

Attack = tuple[float, str, int]
"""ε, the constraint under which the attack was optimised, and its number."""


def read_mail(root: Path) -> Mail:
    data = scipy.io.loadmat(root / "sever" / "enron_data.mat")
    return Mail.of(
        data["X_train"].astype(np.float64),
        data["y_train"].ravel().astype(np.intp),
        data["X_test"].astype(np.float64),
        data["y_test"].ravel().astype(np.intp),
    )


def attacks(root: Path) -> Iterator[tuple[Attack, bytes]]:
    """Every attack's name and file, by ε, constraint and number."""
    with tarfile.open(root / "sever" / "enron_attacks.tar.gz") as archive:
        named = {}
        for member in archive.getmembers():
            if found := FOLDER.fullmatch(member.name):
                named[int(found[1]) / 1000, found[2], int(found[3])] = member
        for attack in sorted(named):
            file = archive.extractfile(named[attack])
            assert file is not None
            yield attack, file.read()


def play(mail: Mail, attack: Attack, file: bytes) -> dict[str, Any]:
    """The test errors under one attack."""
    begin = time.perf_counter()
    data = scipy.io.loadmat(io.BytesIO(file), variable_names=["X_attack", "y_attack"])
    labels = data["y_attack"].ravel().astype(np.intp)
    poisoned = mail.with_attack(data["X_attack"], labels)
    epsilon, constraint, number = attack
    found = errors(poisoned, epsilon, CLEAN_RATIO * epsilon / NUM_ROUNDS)
    return {
        "epsilon": epsilon,
        "constraint": constraint,
        "number": number,
        "num_poisoned": len(labels),
        "errors": found,
        "seconds": round(time.perf_counter() - begin, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=None, help="default: FEDROBUST_DATA")
    parser.add_argument("--quick", action="store_true", help="four attacks a setting at 1 %%, nothing written")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    root = find_data_root(options.data_root)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    mail = read_mail(root)
    clean = errors(mail, 0.0, 0.0)["none"]
    print(f"clean test error {clean:.5f}")
    path = HERE / "results.jsonl"
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() and not options.quick else []
    known = {(row["epsilon"], row["constraint"], row["number"]) for row in done}
    left = [(attack, file) for attack, file in attacks(root) if attack not in known]
    if options.quick:
        left = [(attack, file) for attack, file in left if attack[0] == 0.01 and attack[2] <= 4]
    jobs = (delayed(play)(mail, attack, file) for attack, file in left)
    results = Parallel(n_jobs=options.processes, return_as="generator_unordered", max_nbytes="1M")(jobs)
    for row in track(results, description="attacks", total=len(left)):
        done.append(row)
        if options.quick:
            print(row)
        else:
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
    if not options.quick:
        write_report(HERE, clean, done)


if __name__ == "__main__":
    main()
