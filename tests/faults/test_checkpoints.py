import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from folders import assert_one_line, assert_same_run, rounds_without_times
from safetensors.torch import load_file, save_file

from fedrobust.records.run_folder import RunFolder

GoingOn = Callable[..., tuple[int, str]]


def flipped(data: bytes, place: float, bit: int = 0) -> bytes:
    index = min(int(place * len(data)), len(data) - 1)
    return data[:index] + bytes([data[index] ^ (1 << bit)]) + data[index + 1 :]


def refused_and_saved(folder: Path, whole: Path, going_on: GoingOn) -> None:
    """The checkpoint is refused, nothing good is lost, and the one before it leads to the same run."""
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}
    code, said = going_on(folder)
    assert_one_line(code, said)
    assert "from=1 goes on after round 1, or from=0 plays all rounds again" in said
    for name, data in before.items():
        assert (folder / name).read_bytes() == data, name
    code, said = going_on(folder, "from=1")
    assert code == 0, said
    assert_same_run(folder, whole)


@pytest.mark.fault(
    "Checkpoints", "one bit of the checkpoint flipped", "one line with the round to go on from; then the same bytes"
)
@pytest.mark.parametrize(
    "place", [pytest.param(index / 60, marks=() if index % 5 == 0 else pytest.mark.slow) for index in range(60)]
)
def test_a_flipped_bit(half: Path, whole: Path, going_on: GoingOn, place: float) -> None:
    path = RunFolder(half).checkpoint_file
    data = path.read_bytes()
    path.write_bytes(flipped(data, place, bit=int(97 * place) % 8))
    refused_and_saved(half, whole, going_on)


@pytest.mark.fault(
    "Checkpoints", "the checkpoint cut short", "one line with the round to go on from; then the same bytes"
)
@pytest.mark.parametrize("part", [0.0, 1e-4, 0.001, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.99, 0.9999])
def test_a_cut_checkpoint(half: Path, whole: Path, going_on: GoingOn, part: float) -> None:
    path = RunFolder(half).checkpoint_file
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    refused_and_saved(half, whole, going_on)


def zeros(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


OTHERS: dict[str, Callable[[bytes], bytes]] = {
    "zeros at the end": zeros,
    "all zeros": lambda data: bytes(len(data)),
    "more at the end": lambda data: data + b"x",
    "twice": lambda data: data + data,
    "random bytes": lambda data: bytes(
        torch.randint(256, (5000,), generator=torch.Generator().manual_seed(0)).tolist()
    ),
    "text": lambda data: b"no checkpoint at all\n",
    "JSON": lambda data: b'{"round": 2}',
    "a header of 2^60 bytes": lambda data: (2**60).to_bytes(8, "little") + data[8:],
    "a header of 2^20 bytes": lambda data: (2**20).to_bytes(8, "little") + data[8:],
    "a pickle": lambda data: b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
    "a zip": lambda data: b"PK\x03\x04" + data,
}


@pytest.mark.fault(
    "Checkpoints",
    "something else in the checkpoint's place",
    "one line with the round to go on from; then the same bytes",
)
@pytest.mark.parametrize("name", OTHERS)
def test_other_bytes(half: Path, whole: Path, going_on: GoingOn, name: str) -> None:
    path = RunFolder(half).checkpoint_file
    path.write_bytes(OTHERS[name](path.read_bytes()))
    refused_and_saved(half, whole, going_on)


@pytest.mark.fault(
    "Checkpoints",
    "the checkpoint's tensors exchanged, its description kept",
    "one line with the round to go on from; then the same bytes",
)
@pytest.mark.parametrize(
    "change", ["nan", "infinity", "one number", "a tensor less", "a tensor more", "other names", "float64"]
)
def test_other_tensors(half: Path, whole: Path, going_on: GoingOn, change: str) -> None:
    from safetensors import safe_open

    path = RunFolder(half).checkpoint_file
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    name = sorted(tensors)[0]
    values = tensors[name].flatten()
    if change in ("nan", "infinity", "one number"):
        values[0] = {"nan": torch.nan, "infinity": torch.inf, "one number": float(values[0]) + 1e-6}[change]
    elif change == "a tensor less":
        del tensors[name]
    elif change == "a tensor more":
        tensors["more"] = torch.zeros(2)
    elif change == "other names":
        tensors["other"] = tensors.pop(name)
    else:
        tensors[name] = tensors[name].double()
    save_file(tensors, path, metadata=metadata)
    refused_and_saved(half, whole, going_on)


@pytest.mark.fault(
    "Checkpoints",
    "another file of the run in the checkpoint's place",
    "one line with the round to go on from; then the same bytes",
)
@pytest.mark.parametrize("name", ["model.safetensors", "partition.safetensors", "rounds.jsonl", "config.yaml"])
def test_another_file(half: Path, whole: Path, going_on: GoingOn, name: str) -> None:
    RunFolder(half).checkpoint_file.write_bytes((half / name).read_bytes())
    refused_and_saved(half, whole, going_on)


@pytest.mark.fault("Checkpoints", "the checkpoint of another run", "one line that names the settings that differ")
@pytest.mark.parametrize("setting", ["model.hidden_sizes=[9]", "seed=1", "aggregator=mean", "client.learning_rate=0.2"])
def test_of_another_run(half: Path, whole: Path, going_on: GoingOn, setting: str, tmp_path: Path) -> None:
    from folders import SCENARIO

    from fedrobust.commands import cli

    cli.main([*SCENARIO, "num_rounds=2", setting, f"hydra.run.dir={tmp_path / 'other'}"])
    RunFolder(half).checkpoint_file.write_bytes(RunFolder(tmp_path / "other").checkpoint_file.read_bytes())
    code, said = going_on(half)
    assert_one_line(code, said)
    assert setting.split("=")[0] in said


@pytest.mark.fault(
    "Checkpoints",
    "a checkpoint lost",
    "the run goes on from the one before, or plays all rounds again, to the same bytes",
)
@pytest.mark.parametrize("lost", [("checkpoint",), ("checkpoint.previous",), ("checkpoint", "checkpoint.previous")])
def test_lost(
    half: Path, whole: Path, going_on: GoingOn, lost: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    for name in lost:
        (half / f"{name}.safetensors").unlink()
    code, said = going_on(half)
    assert code == 0, said
    assert_same_run(half, whole)
    if len(lost) == 2:
        assert "has no checkpoint: all rounds are played again" in caplog.text


@pytest.mark.fault("Checkpoints", "a round to go on from that cannot be", "one line with the rounds that can")
@pytest.mark.parametrize("wanted", ["3", "17", "-1", "x", "1.5", ""])
def test_from_nowhere(half: Path, whole: Path, going_on: GoingOn, wanted: str) -> None:
    code, said = going_on(half, f"from={wanted}")
    assert_one_line(code, said)
    assert "from: must be a round" in said
    assert going_on(half)[0] == 0
    assert_same_run(half, whole)


@pytest.mark.fault("Checkpoints", "the user goes on from an earlier round", "the same bytes")
@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_from_a_round(half: Path, whole: Path, going_on: GoingOn, wanted: int) -> None:
    assert going_on(half, f"from={wanted}")[0] == 0
    assert_same_run(half, whole)


def test_a_checkpoint_without_a_digest_is_refused(half: Path, whole: Path, going_on: GoingOn) -> None:
    path = RunFolder(half).checkpoint_file
    text = json.dumps({"round": 2, "meta": {"seconds": 1.0}})
    save_file(load_file(path), path, metadata={"checkpoint": text})
    code, said = going_on(half)
    assert_one_line(code, said)
    assert "cannot be verified" in said
    assert len(rounds_without_times(half)) == 3
