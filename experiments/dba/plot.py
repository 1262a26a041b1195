"""Draw, tabulate and test the single-shot comparison of DBA with its centralised twin.

    python experiments/dba/plot.py [SWEEP_FOLDER]

SWEEP_FOLDER is what the sweep in this folder's README leaves behind; its figures go to `single_shot.jsonl` here, one
line a run. Without it, those that are there already are read. Writes `attack_success.png` and `table.md` here.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from significance import difference_table

from fedrobust.study import percent

HERE = Path(__file__).parent
RUNS = HERE / "single_shot.jsonl"
LAST_SHOT = 18
TIMES = {"the round of the last shot": LAST_SHOT, "10 later": 28, "20 later": 38, "50 later": 68}
NAMES = {"dba": "DBA: four local triggers", "badnets": "centralised: one whole trigger"}
COLOURS = {"dba": "#D55E00", "badnets": "#0072B2"}


@dataclass(frozen=True)
class Run:
    """One seed of one attack: what was evaluated, round by round."""

    seed: int
    rounds: list[int]
    success: list[float]
    accuracy: list[float]
    seconds: list[float]

    def success_at(self, number: int) -> float:
        """Attack success after a round."""
        return self.success[self.rounds.index(number)]

    def lowest_accuracy(self) -> float:
        """The lowest clean accuracy from DBA's first shot on."""
        return min(rate for number, rate in zip(self.rounds, self.accuracy, strict=True) if number >= 12)


def read(folder: Path) -> dict[str, list[Run]]:
    """The finished runs below a folder, by attack."""
    runs: dict[str, list[Run]] = {}
    for summary in sorted(folder.glob("**/summary.json")):
        attack = json.loads((summary.parent / "choices.json").read_text())["attack"]
        rows = [json.loads(line) for line in (summary.parent / "rounds.jsonl").read_text().splitlines()]
        seen = [row for row in rows if row["clean_accuracy"] is not None]
        parts = ("seconds_training", "seconds_messages", "seconds_attack", "seconds_aggregation")
        run = Run(
            seed=int(OmegaConf.load(summary.parent / "config.yaml").seed),
            rounds=[row["round"] for row in seen],
            success=[row["attack_success_rate"] for row in seen],
            accuracy=[row["clean_accuracy"] for row in seen],
            seconds=[sum(row.get(part, 0.0) for part in parts) for row in rows[1:]],
        )
        runs.setdefault(attack, []).append(run)
    return {attack: sorted(of_attack, key=lambda run: run.seed) for attack, of_attack in runs.items()}


def write(runs: dict[str, list[Run]], path: Path) -> None:
    """One line a run."""
    lines = [json.dumps({"attack": attack, **asdict(run)}) for attack, own in sorted(runs.items()) for run in own]
    path.write_text("".join(f"{line}\n" for line in lines))


def read_written(path: Path) -> dict[str, list[Run]]:
    """What `write` wrote."""
    runs: dict[str, list[Run]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        runs.setdefault(row.pop("attack"), []).append(Run(**row))
    return runs


def draw(runs: dict[str, list[Run]], path: Path) -> None:
    """Attack success and clean accuracy over rounds: the mean over seeds, and each seed."""
    figure = Figure(figsize=(8.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for attack, of_attack in sorted(runs.items(), reverse=True):
        rounds = of_attack[0].rounds
        success = np.array([run.success for run in of_attack])
        for one in success:
            axes.plot(rounds, one, color=COLOURS[attack], alpha=0.3, linewidth=1)
        axes.plot(rounds, success.mean(axis=0), color=COLOURS[attack], linewidth=2.2, label=NAMES[attack])
        short = NAMES[attack].partition(":")[0]
        accuracy = np.array([run.accuracy for run in of_attack]).mean(axis=0)
        axes.plot(
            rounds, accuracy, color=COLOURS[attack], linestyle="--", linewidth=1.2, label=f"clean accuracy, {short}"
        )
    for shot in (12, 14, 16, LAST_SHOT):
        axes.axvline(shot, color="0.7", linewidth=0.8, zorder=0)
    axes.set(xlabel="round", ylabel="share of test examples", ylim=(-0.02, 1.02), xlim=(0, rounds[-1]))
    axes.set_title(
        "Attack success of the global trigger, MNIST, single shot (thick: mean of seeds)",
        loc="left",
        fontweight="bold",
        pad=18,
    )
    axes.text(12, 1.03, " DBA's shots; the twin's is the last", fontsize=8, color="0.4")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, ncols=2, loc="outside lower center")
    figure.savefig(path, dpi=150)


def table(runs: dict[str, list[Run]]) -> str:
    """Mean ± standard deviation over seeds."""
    lines = [
        "| attack | seeds | "
        + " | ".join(TIMES)
        + " | lowest clean accuracy from round 12 on | clean accuracy, round 70 "
        + "| s/round without evaluation, median (minimum) |",
        "|---|---|" + "---|" * (len(TIMES) + 3),
    ]
    for attack, of_attack in sorted(runs.items(), reverse=True):
        cells = [NAMES[attack], ", ".join(str(run.seed) for run in of_attack)]
        cells += [percent([run.success_at(number) for run in of_attack]) for number in TIMES.values()]
        cells += [percent([run.lowest_accuracy() for run in of_attack])]
        cells += [percent([run.accuracy[-1] for run in of_attack])]
        seconds = [second for run in of_attack for second in run.seconds]
        cells += [f"{np.median(seconds):.2f} ({min(seconds):.2f})"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tests(runs: dict[str, list[Run]]) -> str:
    """DBA against its twin at each time, over the seeds that both have."""
    both = sorted({run.seed for run in runs["dba"]} & {run.seed for run in runs["badnets"]})
    success = {}
    for name, number in TIMES.items():
        dba, twin = ([run.success_at(number) for run in runs[one] if run.seed in both] for one in ("dba", "badnets"))
        success[name] = (dba, twin)
    return difference_table(success)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", metavar="SWEEP_FOLDER")
    folder = parser.parse_args().folder
    if folder is not None:
        found = read(folder)
        if not found:
            raise SystemExit("no finished run in that folder")
        write(found, RUNS)
    runs = read_written(RUNS)
    draw(runs, HERE / "attack_success.png")
    text = table(runs) + "\n\n" + tests(runs)
    (HERE / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
