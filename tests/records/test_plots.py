"""The plots exist when there is something to show, and what is drawn is what was given."""

from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from fedrobust.records import plots
from fedrobust.records.plots import plot_examples, plot_run
from fedrobust.records.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"round": 0, "clean_accuracy": 0.1, "attack_success_rate": 0.0}]
    for number in (1, 2, 3, 4):
        active = number in (2, 3)
        row = {
            "round": number,
            "attack_active": active,
            "clients": [3, 5],
            "malicious_clients": [5] if active else [],
            "clean_accuracy": 0.2 * number if number % 2 == 0 else None,
            "attack_success_rate": 0.1 * number if number % 2 == 0 else None,
            "local_attack_success_rates": [0.1, 0.2] if number % 2 == 0 else None,
            "update_norms": [1.0 * number, None if number == 4 else 10.0],
            "update_norm_benign": 1.0 * number,
            "update_norm_malicious": 10.0 if active else None,
            "detection_tpr": 1.0 if active else None,
            "detection_fpr": 0.0,
        }
        rows.append(row)
    return rows


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures by file name, kept instead of written."""
    figures: dict[str, Figure] = {}

    def keep(figure: Figure, path: Path) -> Path:
        figures[path.stem] = figure
        return path

    monkeypatch.setattr(plots, "save_figure", keep)
    return figures


def _lines(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    return {str(line.get_label()): [tuple(point) for point in line.get_xydata()] for line in figure.axes[0].lines}


def test_files_are_written_and_equal_runs_give_equal_files(folder: RunFolder) -> None:
    folder.write_partition(torch.tensor([[3, 1], [0, 2]]), seed=0, sizes=[4, 2], indices=[[0, 1, 2, 3], [4, 5]])
    paths = plot_run(folder, _rows(), control=_rows())
    assert [path.name for path in paths] == ["accuracy.png", "detection.png", "norms.png", "partition.png"]
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in plot_run(folder, _rows(), control=_rows())] == first


def test_nothing_to_show_is_no_file(folder: RunFolder) -> None:
    assert plot_run(folder, []) == []
    assert [path.name for path in plot_run(folder, _rows()[:1])] == ["accuracy.png"]


def test_accuracy_has_the_evaluated_rounds_and_the_control(folder: RunFolder, drawn: dict[str, Figure]) -> None:
    plot_run(folder, _rows(), control=[{"round": 4, "clean_accuracy": 0.9, "attack_success_rate": 0.05}])
    lines = _lines(drawn["accuracy"])
    assert lines["clean accuracy"] == [(0, 0.1), (2, 0.4), (4, 0.8)]
    assert lines["attack success"] == [(0, 0.0), (2, 0.2), (4, 0.4)]
    assert lines["attack success, single triggers"] == [(2, 0.1), (4, 0.1)]
    assert lines["clean accuracy, benign twin"] == [(4, 0.9)]


def test_rounds_under_attack_are_shaded_as_one_stretch(folder: RunFolder, drawn: dict[str, Figure]) -> None:
    plot_run(folder, _rows())
    (band,) = drawn["accuracy"].axes[0].patches
    corners = band.get_window_extent().transformed(drawn["accuracy"].axes[0].transData.inverted())
    assert (corners.x0, corners.x1) == pytest.approx((1.5, 3.5))


def test_norms_are_told_apart_by_who_sent_them(folder: RunFolder, drawn: dict[str, Figure]) -> None:
    """Client 5 is malicious in rounds 2 and 3 alone; its norm of round 4 is unknown. Marks stand 0.15 off the round."""
    plot_run(folder, _rows())
    points = {str(cloud.get_label()): cloud.get_offsets().tolist() for cloud in drawn["norms"].axes[0].collections}
    assert sorted(points["malicious client"]) == [pytest.approx([2.15, 10]), pytest.approx([3.15, 10])]
    assert sorted(norm for _, norm in points["benign client"]) == [1, 2, 3, 4, 10]


@pytest.mark.parametrize("channels", [1, 3])
def test_examples_sheet_shows_rows_by_name(folder: RunFolder, channels: int) -> None:
    clean = torch.linspace(-2, 2, 12 * channels * 16).reshape(12, channels, 4, 4)
    path = plot_examples(folder, clean, {"global": clean + 1, "local": clean}, list(range(12)), target_label=3)
    assert path == folder.plots / "examples.png"
    assert imread(path).ndim == 3


def test_examples_must_be_images_of_one_shape(folder: RunFolder) -> None:
    clean = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"must be images .* got shape \(2, 2, 4, 4\)"):
        plot_examples(folder, torch.zeros(2, 2, 4, 4), clean, [0, 1])
    with pytest.raises(ValueError, match=r"triggered: expected shape \(2, 1, 4, 4\), got \(1, 1, 4, 4\)"):
        plot_examples(folder, clean, clean[:1], [0, 1])


def test_pictures_say_what_they_are_of_in_every_format(tmp_path: Path) -> None:
    from fedrobust.figures.style import figures_of
    from fedrobust.records.plot_deployment import plot_deployment

    folder = RunFolder(tmp_path)
    figures = {
        "released_clean_accuracy": 0.94,
        "deployed_clean_accuracy": 0.31,
        "released_attack_success_rate": None,
        "deployed_attack_success_rate": None,
        "random_flips_clean_accuracy": 0.93,
        "num_bit_flips": 40,
    }
    with figures_of("attack=bfa, seed=7", ("png", "pdf", "svg")):
        first = plot_deployment(folder, figures)
    assert first == folder.plots / "deployment.png"
    assert sorted(path.suffix for path in folder.plots.iterdir()) == [".pdf", ".png", ".svg"]
    once = {path.name: path.read_bytes() for path in folder.plots.iterdir()}
    with figures_of("attack=bfa, seed=7", ("png", "pdf", "svg")):
        plot_deployment(folder, figures)
    assert {path.name: path.read_bytes() for path in folder.plots.iterdir()} == once
    with figures_of("attack=bfa, seed=8", ("png",)):
        plot_deployment(folder, figures)
    assert (folder.plots / "deployment.png").read_bytes() != once["deployment.png"]
    assert plot_deployment(folder, {"deployed_clean_accuracy": None}) is None
