"""Pictures of audits within a run: which clients are suspected, and what was found in whose data."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.metrics import roc_curve

from fedrobust.audits.base import ModelReport
from fedrobust.audits.data_auditing import DataFinding
from fedrobust.figures.style import BLUE, GREEN, LIGHT_BLUE, ORANGE, legend_below, new_figure, save_figure
from fedrobust.records.run_folder import Row, RunFolder


def save_report(folder: RunFolder, round_number: int, report: DataFinding | ModelReport) -> Path:
    """Draw what an audit found in a round, into the folder's `audits`."""
    path = folder.path / "audits" / f"round_{round_number:04d}.png"
    if not isinstance(report, DataFinding):
        return save_figure(report.plot(), path)
    num_examples = sum(map(len, report.flagged.values()))
    if len(report.flagged) > 1 and [len(one.flagged) for one in report.reports] == [num_examples]:  # one of all clients
        truth = torch.cat([report.is_poisoned[client] for client in report.flagged])
        return save_figure(report.reports[0].plot(truth), path)
    return _plot_own_audits(report, path)


def plot_client_audit(path: Path, rows: Sequence[Row]) -> Path | None:
    """Clients by their average suspicion at the end of a run, and the receiver operating characteristic of that."""
    audits = [row["audit"] for row in rows if row.get("audit") and row["audit"].get("reputations")]
    if not audits:
        return None
    last = audits[-1]
    malicious = set(last["malicious_clients"])  # those who attacked, and those who were not yet to
    judged = [(value, client) for client, value in enumerate(last["reputations"]) if value is not None]
    judged.sort(key=lambda pair: -pair[0])
    values = [value for value, _ in judged]
    truth = [client in malicious for _, client in judged]
    figure = new_figure(10.0, 4.2)
    ranking, curve = figure.subplots(1, 2, width_ratios=[2.0, 1.0])
    ranking.bar(range(len(values)), values, color=[ORANGE if flag else BLUE for flag in truth], width=0.85)
    ranking.set_title("Average suspicion of clients", loc="left", fontsize=12, fontweight="bold")
    ranking.set_ylabel("average suspicion")
    ranking.set_ylim(0, 1.03)
    if len(values) <= 40:
        ranking.set_xticks(range(len(values)), [str(client) for _, client in judged], fontsize=7)
        ranking.set_xlabel("client, most suspicious first")
    else:
        ranking.set_xlabel("rank, most suspicious first")
        ranking.xaxis.set_major_locator(MaxNLocator(integer=True))
    excluded = set(last["excluded_clients"])
    for rank, (value, client) in enumerate(judged):
        if client in excluded:
            ranking.text(rank, value + 0.005, "×", ha="center", va="bottom", fontsize=9)
    handles = [Patch(color=ORANGE, label="malicious"), Patch(color=BLUE, label="benign")]
    if excluded:
        handles.append(Patch(color="none", label="× excluded"))
    ranking.legend(handles=handles, frameon=False, loc="upper right", ncols=len(handles))
    curve.set_title("Detection", loc="left", fontsize=12, fontweight="bold")
    curve.plot([0, 1], [0, 1], ":", color="#888888")
    if 0 < sum(truth) < len(truth):
        false_rate, true_rate, _ = roc_curve(truth, values)
        curve.plot(false_rate, true_rate, color=GREEN, linewidth=2)
        curve.text(0.97, 0.05, f"AUC {last['client_auc']:.3f}", ha="right")
    else:
        curve.text(0.5, 0.05, "clients of one kind: no curve", ha="center")
    curve.set_xlabel("benign above the threshold")
    curve.set_ylabel("malicious above the threshold")
    for axes in (ranking, curve):
        axes.spines[["top", "right"]].set_visible(False)
    for axis in (curve.xaxis, curve.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    curve.set_xlim(-0.02, 1.02)
    curve.set_ylim(-0.02, 1.02)
    return save_figure(figure, path)


def _plot_own_audits(finding: DataFinding, path: Path) -> Path:
    """What each client's own audit flagged, of poisoned and of clean examples."""
    clients = list(finding.flagged)
    hits = [int((finding.flagged[client] & finding.is_poisoned[client]).sum()) for client in clients]
    wrong = [int((finding.flagged[client] & ~finding.is_poisoned[client]).sum()) for client in clients]
    poisoned = [int(finding.is_poisoned[client].sum()) for client in clients]
    places = np.arange(len(clients))
    figure = new_figure(max(7.0, 0.25 * len(clients)), 4.2)
    axes = figure.add_subplot()
    axes.set_title("What clients flag in their own data", loc="left", fontsize=12, fontweight="bold")
    axes.bar(places - 0.2, poisoned, width=0.4, color=LIGHT_BLUE, label="poisoned")
    axes.bar(places + 0.2, hits, width=0.4, color=GREEN, label="flagged and poisoned")
    axes.bar(places + 0.2, wrong, width=0.4, bottom=hits, color=ORANGE, label="flagged and clean")
    axes.set_ylabel("examples")
    axes.set_xlabel("client" + (" (?: could not be judged)" if finding.reasons else ""))
    axes.set_xticks(places, [f"{client}?" if client in finding.reasons else str(client) for client in clients])
    axes.spines[["top", "right"]].set_visible(False)
    legend_below(figure, axes)
    return save_figure(figure, path)
