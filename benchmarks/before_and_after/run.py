"""Has a change cost speed? Two checkouts of fedrobust, measured in turns in one run.

    git worktree add ../before <commit>
    python benchmarks/before_and_after/run.py --before ../before [--only rule] [--repeats 7] [--data ROOT]

Every measurement is made by two processes, one on each checkout, which wait while the other works. Writes
table.md beside this file; with `--only` what `--write` names, if anything.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.progress import track

from fedrobust import aggregators

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SIZES = ((20, 17_226), (50, 1_000_000))
"""Clients x parameters: the default scenario's, and a matrix that no cache holds."""
NORMS = ((1000, 10_000), (50, 1_000_000), (50, 10_000_000))
NOISE = 0.05
"""Ratios within 5 % of 1 lie within what two runs of one checkout differ by here (the rows of `read`)."""


class Checkout:
    """A process that measures one checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        if not (self.root / "fedrobust" / "__init__.py").exists():
            raise SystemExit(f"--before={root}: no checkout of fedrobust (no fedrobust/__init__.py)")
        environment = os.environ | {"PYTHONPATH": str(self.root)}
        command = [sys.executable, str(HERE / "worker.py")]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=self.root)

    def commit(self) -> str:
        """Its commit, with a mark where files differ from it."""
        git = ["git", "-C", str(self.root), "describe", "--always", "--dirty"]
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()

    def measure(self, question: list[Any]) -> float | str:
        """Seconds, or why it could not be measured."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def questions(data_root: str | None) -> list[list[Any]]:
    """Every measurement, those of one size after each other."""
    asked: list[list[Any]] = []
    for num_clients, num_parameters in SIZES:
        asked.append(["read", num_clients, num_parameters])
        asked += [["rule", rule.__name__, num_clients, num_parameters] for rule in aggregators.RULES]
    for size in NORMS:
        asked += [["read", *size], ["squared_norms", *size]]
    asked += [["idle_round", *each] for each in ((10, 1), (10, 10), (100, 1), (100, 100))]
    asked.append(["played_round", "num_rounds=10", "evaluate_every=10"])
    asked.append(["played_round", "attack=none", "num_rounds=10", "evaluate_every=10"])
    asked.append(["played_round", "attack=none", "client.vectorize=false", "num_rounds=10", "evaluate_every=10"])
    if data_root:
        mnist = ["dataset=mnist", f"data_root={data_root}", "model=dba_cnn", "num_clients=100", "server.num_sampled=10"]
        asked.append(["played_round", *mnist, "attack=none", "aggregator=mean", "num_rounds=6", "evaluate_every=6"])
    return asked


def row_of(question: list[Any], before: list[float | str], after: list[float | str]) -> str:
    """Milliseconds before and after (medians, and the least), the ratio of the least, and the turns' ratios."""
    name = " ".join(str(part) for part in question)
    if failures := [one for one in (*before, *after) if isinstance(one, str)]:
        return f"| {name} | not measured: {failures[0].splitlines()[0][:120]} | | | | |"
    ratios = [new / old for old, new in zip(before, after, strict=True)]
    cells = [f"{1e3 * statistics.median(one):.3g} ({1e3 * min(one):.3g})" for one in (before, after)]
    ratio = min(after) / min(before)  # the least is what other work on the machine disturbs least
    verdict = "same" if abs(ratio - 1) <= NOISE else "slower" if ratio > 1 else "faster"
    turns = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"| {name} | {cells[0]} | {cells[1]} | {ratio:.2f} | {turns} | {verdict} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="root of the other checkout")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="measure what has one of these words in its name")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--write", metavar="NAME.md", help="table to write beside this file; table.md without --only")
    parser.add_argument("--data", help="data root with MNIST, for a round of it")
    options = parser.parse_args()
    before, after = Checkout(options.before), Checkout(ROOT)
    load = os.getloadavg()[0]
    chosen = [
        one
        for one in questions(options.data)
        if options.only is None or set(options.only) & {str(part) for part in one}
    ]
    if not chosen:
        raise SystemExit(f"--only={' '.join(options.only)}: no measurement has such a word")
    lines = []
    for question in track(chosen, description="measurements"):
        found: dict[Checkout, list[float | str]] = {before: [], after: []}
        for turn in range(options.repeats):
            for checkout in (before, after) if turn % 2 == 0 else (after, before):
                found[checkout].append(checkout.measure(question))
        lines.append(row_of(question, found[before], found[after]))
        print(lines[-1], flush=True)
    machine = (
        f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, load average {load:.1f} at the start"
    )
    text = (
        f"Before: `{before.commit()}`; after: `{after.commit()}`; {machine}. Milliseconds: the median over "
        f"{options.repeats} turns (the least); the ratio of the least; the ratio of each turn, its median (range).\n\n"
        "| measurement | before | after | least / least | turns | |\n|---|--:|--:|--:|--:|---|\n"
        + "\n".join(lines)
        + "\n"
    )
    if written := options.write or ("table.md" if options.only is None else None):
        (HERE / written).write_text(text)


if __name__ == "__main__":
    main()
