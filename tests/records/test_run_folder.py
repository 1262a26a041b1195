"""The run folder, against Python's json, the safetensors format's own reader, and files torn by hand."""

import json
import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from fedrobust.records.checkpoint import Checkpoint
from fedrobust.records.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "outputs" / "run")
    made.create()
    return made


def test_a_run_does_not_write_into_another(folder: RunFolder) -> None:
    folder.create()  # an empty folder, as Hydra leaves it, is no run
    folder.append_round({"round": 0})
    with pytest.raises(FileExistsError, match="already holds a run"):
        folder.create()
    folder.create(resume=True)


def test_small_files_hold_what_was_given(folder: RunFolder) -> None:
    folder.write_config("seed: 3\nattack:\n  scale: 2.5\n")
    folder.write_choices({"attack": "dba", "aggregator": "mean"})
    assert OmegaConf.load(folder.path / "config.yaml") == {"seed": 3, "attack": {"scale": 2.5}}
    assert json.loads((folder.path / "choices.json").read_text()) == {"attack": "dba", "aggregator": "mean"}
    assert not list(folder.path.glob(".*"))  # no temporary file stays


def test_environment_names_what_the_run_ran_on(folder: RunFolder) -> None:
    folder.write_environment("cpu")
    environment = json.loads((folder.path / "environment.json").read_text())
    assert environment["device"] == "cpu"
    assert environment["threads"] == torch.get_num_threads()
    assert environment["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert environment["git_commit"] is None or len(environment["git_commit"]) == 40


def test_json_is_strict(folder: RunFolder) -> None:
    """JSON knows no NaN: a strict parser must get null for it, at any depth."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    figures = {"round": 1, "loss": math.nan, "norms": [1.0, math.inf], "diagnostics": {"radius": -math.inf, "kept": 3}}
    expected = {"round": 1, "loss": None, "norms": [1.0, None], "diagnostics": {"radius": None, "kept": 3}}
    folder.append_round(figures)
    folder.write_summary(figures)
    assert json.loads((folder.path / "rounds.jsonl").read_text(), parse_constant=refuse) == expected
    assert json.loads((folder.path / "summary.json").read_text(), parse_constant=refuse) == expected


def test_a_run_has_one_outcome(folder: RunFolder) -> None:
    folder.write_failure("Krum needs n >= 2f + 3, got n=10, f=4")
    assert json.loads((folder.path / "failure.json").read_text()) == {"reason": "Krum needs n >= 2f + 3, got n=10, f=4"}
    folder.write_summary({"clean_accuracy": 0.9})
    assert not (folder.path / "failure.json").exists()
    folder.write_failure("out of memory")
    assert not (folder.path / "summary.json").exists()


def test_partition_comes_back_with_uneven_and_empty_clients(folder: RunFolder) -> None:
    indices = [torch.tensor([5, 0, 2]), [], [7]]
    histogram = torch.tensor([[2, 1], [0, 0], [0, 1]])
    assert folder.read_histogram() is None
    folder.write_partition(histogram, seed=4, sizes=[3, 0, 1], indices=indices)
    assert [part.tolist() for part in folder.read_partition()] == [[5, 0, 2], [], [7]]
    assert torch.equal(folder.read_histogram(), histogram)
    stored = json.loads((folder.path / "partition.json").read_text())
    assert (stored["seed"], stored["sizes"], stored["num_clients"], stored["num_classes"]) == (4, [3, 0, 1], 3, 2)


def test_rounds_survive_a_kill(folder: RunFolder) -> None:
    """A kill in the middle of a write leaves a line without its end; resuming goes back to the checkpoint's round."""
    assert folder.read_rounds() == []
    folder.truncate_rounds(0)  # nothing there yet
    for number in range(4):
        folder.append_round({"round": number, "clean_accuracy": 0.1 * number})
    path = folder.path / "rounds.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + b'{"round": 4, "clean_acc')
    assert [row["round"] for row in folder.read_rounds()] == [0, 1, 2, 3]
    folder.truncate_rounds(2)
    assert path.read_bytes() == b"".join(lines[:3])
    folder.append_round({"round": 3, "clean_accuracy": 0.1 * 3})
    assert path.read_bytes() == b"".join(lines)


def test_a_damaged_line_in_the_middle_is_reported(folder: RunFolder) -> None:
    (folder.path / "rounds.jsonl").write_bytes(b'{"round": 0}\n{"rou\n{"round": 2}\n')
    with pytest.raises(ValueError, match=r"rounds\.jsonl, line 2: not JSON"):
        folder.read_rounds()


def test_equal_models_are_equal_files(folder: RunFolder) -> None:
    """Neither the order of the names, nor memory layout, nor shared memory shows in the bytes."""
    matrix = torch.arange(6.0).reshape(2, 3)
    folder.save_model({"weight": matrix, "bias": matrix[0]})
    first = (folder.path / "model.safetensors").read_bytes()
    folder.save_model({"bias": matrix[0].clone(), "weight": matrix.t().contiguous().t()})
    assert (folder.path / "model.safetensors").read_bytes() == first
    assert torch.equal(load_file(folder.path / "model.safetensors")["weight"], matrix)


def test_checkpoint_comes_back_exactly(folder: RunFolder) -> None:
    """Bit for bit, NaN included, since a resumed run must write the same bytes as an uninterrupted one."""
    assert folder.load_checkpoint() is None
    vector = torch.tensor([0.1, math.nan, -0.0, 1e-45])
    tensors = {"global": vector, "momentum/0": torch.tensor(3), "empty": torch.empty(0, 2)}
    meta = {"best": 0.1 + 0.2, "loss": math.inf, "names": ["a", "b"]}
    folder.save_checkpoint(Checkpoint(6, {"old": vector}, {}))
    folder.save_checkpoint(Checkpoint(7, tensors, meta))
    loaded = folder.load_checkpoint()
    assert loaded is not None
    got = loaded.tensors
    assert (loaded.round, loaded.meta) == (7, meta)
    assert got.keys() == tensors.keys()
    assert got["global"].view(torch.int32).tolist() == vector.view(torch.int32).tolist()
    assert got["momentum/0"].item() == 3
    assert got["empty"].shape == (0, 2)


def test_a_kill_while_saving_leaves_the_old_checkpoint(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file takes the old one's name only when it is whole: stop just before."""
    folder.save_checkpoint(Checkpoint(1, {"global": torch.ones(2)}, {}))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedrobust.records.files.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.save_checkpoint(Checkpoint(2, {"global": torch.zeros(2)}, {}))
    monkeypatch.undo()
    loaded = folder.load_checkpoint()
    assert loaded is not None
    assert loaded.round == 1
    assert loaded.tensors["global"].tolist() == [1, 1]
    folder.save_checkpoint(Checkpoint(2, {"global": torch.zeros(2)}, {}))  # and what the kill left is no obstacle
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "checkpoint.previous.safetensors",
        "checkpoint.safetensors",
    ]
