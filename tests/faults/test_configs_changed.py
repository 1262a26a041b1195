import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import assert_one_line, assert_same_run
from omegaconf import OmegaConf

GoingOn = Callable[..., tuple[int, str]]

CHANGED = {
    "seed": 1,
    "num_clients": 5,
    "client.learning_rate": 0.05,
    "client.num_epochs": 3,
    "client.batch_size": 8,
    "client.momentum": 0.5,
    "server.learning_rate": 0.5,
    "server_optimizer.beta": 0.5,
    "aggregator.num_iterations": 5,
    "attack.num_malicious": 2,
    "attack.data.target_label": 7,
    "attack.data.poison_rate": 0.9,
    "dataset.num_test": 400,
    "evaluate_every": 2,
    "checkpoint_every": 2,
}


def change(folder: Path, key: str, value: object) -> None:
    config = OmegaConf.load(folder / "config.yaml")
    assert OmegaConf.select(config, key) != value
    OmegaConf.update(config, key, value)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))


@pytest.mark.fault("Configs", "a setting changed by hand", "one line with the setting, before and after")
@pytest.mark.parametrize("key", CHANGED)
def test_refused(half: Path, whole: Path, going_on: GoingOn, key: str) -> None:
    before = (half / "config.yaml").read_bytes()
    change(half, key, CHANGED[key])
    code, said = going_on(half)
    assert_one_line(code, said)
    assert re.search(rf"config\.yaml in \S+ has changed since round 2 .*{re.escape(key)}: .* -> ", said)
    assert "accept_changes=true" in said
    (half / "config.yaml").write_bytes(before)
    assert going_on(half)[0] == 0
    assert_same_run(half, whole)


@pytest.mark.fault("Configs", "a changed setting that the user accepts", "the change is recorded with its round")
@pytest.mark.parametrize("key", ["client.learning_rate", "server.learning_rate", "evaluate_every"])
def test_accepted(half: Path, whole: Path, going_on: GoingOn, key: str, caplog: pytest.LogCaptureFixture) -> None:
    change(half, key, CHANGED[key])
    code, said = going_on(half, "accept_changes=true")
    assert code == 0, said
    assert f"settings have changed after round 2: {key}" in caplog.text
    (noted,) = [json.loads(line) for line in (half / "changes.jsonl").read_text().splitlines()]
    assert noted["after_round"] == 2
    assert noted["changes"][key][1] == str(CHANGED[key])
    assert going_on(half)[0] == 0  # and is what the next part is compared with


@pytest.mark.fault("Configs", "what a later part may have otherwise", "the same bytes, and the change is recorded")
@pytest.mark.parametrize("more", ["num_rounds=4", "verbose=true", "data_root=/nowhere"])
def test_allowed(half: Path, whole: Path, going_on: GoingOn, more: str) -> None:
    code, said = going_on(half, more)
    assert code == 0, said
    assert_same_run(half, whole)
    key, _, value = more.partition("=")
    (noted,) = [json.loads(line) for line in (half / "changes.jsonl").read_text().splitlines()]
    assert noted["changes"][key][1].lower() == value


@pytest.mark.fault("Configs", "config.yaml damaged", "one line")
@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b"seed: [", b"\xff\xfe", b"seed: x\n", b"17", b"seed: 0\nnonsense: 1\n"]
)
def test_damaged(half: Path, whole: Path, going_on: GoingOn, content: bytes) -> None:
    before = (half / "config.yaml").read_bytes()
    (half / "config.yaml").write_bytes(content)
    code, said = going_on(half)
    assert_one_line(code, said)
    (half / "config.yaml").write_bytes(before)
    assert going_on(half)[0] == 0
    assert_same_run(half, whole)


@pytest.mark.fault(
    "Configs", "choices.json lost or damaged", "the choices come back from the checkpoint; the same bytes"
)
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b"null", b'{"attack": 3}', b"\xff", b'{"attack": "d'])
def test_choices(half: Path, whole: Path, going_on: GoingOn, content: bytes | None) -> None:
    path = half / "choices.json"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    code, said = going_on(half)
    assert code == 0, said
    assert_same_run(half, whole)


@pytest.mark.fault("Configs", "environment.json or the partition lost or damaged", "written anew; the same bytes")
@pytest.mark.parametrize("name", ["environment.json", "partition.json", "partition.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"[1]"])
def test_what_can_be_written_anew(half: Path, whole: Path, going_on: GoingOn, name: str, content: bytes | None) -> None:
    path = half / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    code, said = going_on(half)
    assert code == 0, said
    assert_same_run(half, whole)
    assert (half / name).stat().st_size > 10


def test_other_versions_are_said_and_all_environments_kept(
    half: Path, whole: Path, going_on: GoingOn, caplog: pytest.LogCaptureFixture
) -> None:
    path = half / "environment.json"
    first = json.loads(path.read_text())
    first["packages"]["torch"] = "1.0"
    path.write_text(json.dumps(first))
    assert going_on(half)[0] == 0
    assert "has other versions than the first: torch: 1.0 -> " in caplog.text
    assert json.loads(path.read_text()) == first
    (second,) = [json.loads(line) for line in (half / "environments.jsonl").read_text().splitlines()]
    assert second["packages"]["torch"] != "1.0"
