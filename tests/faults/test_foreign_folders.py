"""Folders that somebody else wrote: none of their code runs, nothing of this process's environment goes into them."""

import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from folders import assert_one_line, assert_same_run
from omegaconf import OmegaConf

from fedrobust.audit_command.command import main as audit

GoingOn = Callable[..., tuple[int, str]]
RAN: list[str] = []


@dataclass
class Plug:
    """A component of somebody's own, which takes note when it is built."""

    factor: float = 1.0

    def __post_init__(self) -> None:
        RAN.append("built")

    def __call__(self, updates: Any, weights: Any = None) -> Any:
        from fedrobust.aggregators import Mean

        return Mean()(updates, weights)


@pytest.fixture(autouse=True)
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that takes note when it is imported, and one that is there already."""
    (tmp_path / "evilmod.py").write_text("import builtins\nbuiltins.evil_ran = True\nclass X: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plug = types.ModuleType("plugmod")
    plug.Plug = Plug  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "plugmod", plug)
    monkeypatch.setenv("MY_SECRET", "s3cr3t")
    RAN.clear()
    yield
    import builtins

    assert not hasattr(builtins, "evil_ran")
    sys.modules.pop("evilmod", None)


def change(folder: Path, key: str, value: Any) -> None:
    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=False)
    node: Any = config
    *parents, last = key.split(".")
    for name in parents:
        node = node.setdefault(name, {}) if isinstance(node, dict) else node[int(name)]
    node[last] = value
    text = OmegaConf.to_yaml(OmegaConf.create(config))
    (folder / "config.yaml").write_text(text)


TARGETS = [
    "evilmod.X",
    "evilmod",
    "os.system",
    "posix.system",
    "subprocess.Popen",
    "builtins.exec",
    "builtins.eval",
    "importlib.import_module",
    "antigravity.x",
    "venv.__main__.X",
    "hydra.utils.call",
    "pickle.loads",
    "torch.load",
    "plugmod.Plug",
    "fedrobust.runs.run.torch.load",
    "fedrobust.commands.cli.os.system",
    "fedrobust.records.run_folder.os.system",
    "fedrobust.records.sweep.Path",
    "fedrobust.config.building.dataclass",
    "fedrobust",
    "fedrobust.",
    ".evilmod.X",
    "fedrobust..evilmod.X",
    "fedrobust.evilmod;import os",
    "fedrobustx.evil.X",
    "FEDROBUST.X",
    "evilmod.\u202eX",
    "",
    17,
    None,
    ["evilmod.X"],
]
PLACES = ["aggregator._target_", "dataset._target_", "logger._target_", "attack.data.trigger._target_"]


@pytest.mark.fault(
    "Foreign folders", "a config that names somebody's code", "one line; nothing is imported, nothing runs"
)
@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_a_target_is_not_run(half: Path, whole: Path, going_on: GoingOn, target: Any) -> None:
    place = PLACES[TARGETS.index(target) % len(PLACES)]
    change(half, place, target)
    code, said = going_on(half)
    assert_one_line(code, said)
    assert place in said
    assert RAN == []
    assert "evilmod" not in sys.modules


@pytest.mark.fault(
    "Foreign folders", "a config that hides a target deep inside", "one line; nothing is imported, nothing runs"
)
@pytest.mark.parametrize(
    "place",
    [
        "preaggregator.mine",
        "preaggregator.mine.inner.0",
        "attack.update.inner",
        "server.anything.deep.er",
        "watermark.x",
    ],
)
def test_a_hidden_target(half: Path, whole: Path, going_on: GoingOn, place: str) -> None:
    value: Any = {"_target_": "evilmod.X"}
    if place.endswith(".0"):
        place, value = place[:-2], [[value]]
    change(half, place.split(".")[0] + "." + ".".join(place.split(".")[1:]), value)
    code, said = going_on(half)
    assert_one_line(code, said)
    assert "'evilmod.X', which is not run; trust=evilmod allows" in said


INTERPOLATIONS = [
    "${oc.env:MY_SECRET}",
    "http://host/${oc.env:MY_SECRET}",
    "${oc.env:MY_SECRET,none}",
    "${oc.decode:${oc.env:MY_SECRET}}",
    "${seed}",
    "${now:%Y}",
    "${hydra:run.dir}",
    "${oc.create:{a: 1}}",
]


@pytest.mark.fault(
    "Foreign folders", "a config that reads this process's environment", "one line; nothing is looked up or sent"
)
@pytest.mark.parametrize("key", ["data_root", "logger.tracking_uri", "dataset.name"])
@pytest.mark.parametrize("value", INTERPOLATIONS)
def test_nothing_is_looked_up(half: Path, whole: Path, going_on: GoingOn, key: str, value: str) -> None:
    before = (half / "config.yaml").read_bytes()
    change(half, key, value)
    wrong = (half / "config.yaml").read_bytes()
    assert wrong != before
    code, said = going_on(half)
    assert_one_line(code, said)
    assert f"{key} must be a value" in said
    assert "s3cr3t" not in said
    assert (half / "config.yaml").read_bytes() == wrong


@pytest.mark.fault("Foreign folders", "a config whose figures would leave the folder", "one line")
@pytest.mark.parametrize("key", ["tracking_uri", "folder"])
@pytest.mark.parametrize("value", ["http://somewhere:5000", "/tmp/elsewhere", "../up", "file:///tmp/x"])
def test_figures_stay(half: Path, whole: Path, going_on: GoingOn, key: str, value: str) -> None:
    change(half, f"logger.{key}", value)
    code, said = going_on(half)
    assert_one_line(code, said)
    assert f"logger.{key} points out of the folder" in said
    assert "trust=logger allows it" in said


@pytest.mark.fault("Foreign folders", "a YAML tag that would make an object", "one line")
@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!!python/module:os"]
)
def test_a_tag(half: Path, whole: Path, going_on: GoingOn, tag: str) -> None:
    path = half / "config.yaml"
    path.write_text(path.read_text() + f"extra: {tag}\n")
    code, said = going_on(half)
    assert_one_line(code, said)


def test_what_the_user_trusts_is_built(half: Path, whole: Path, going_on: GoingOn) -> None:
    change(half, "aggregator", {"_target_": "plugmod.Plug", "factor": 2.0})
    code, said = going_on(half, "trust=plugmod")
    assert_one_line(code, said)  # another rule than the checkpoint's: that, too, is said
    assert "aggregator._target_" in said
    assert RAN == ["built"]
    code, said = going_on(half, "trust=plugmod", "accept_changes=true")
    assert code == 0, said


@pytest.mark.parametrize("trust", ["", "a b", "1x", "a;b", "a,,b", "../x"])
def test_trust_names_modules(half: Path, whole: Path, going_on: GoingOn, trust: str) -> None:
    code, said = going_on(half, f"trust={trust}")
    assert_one_line(code, said)
    assert "trust: must be names of modules" in said


@pytest.mark.fault("Foreign folders", "an audit of a folder that names somebody's code", "one line; nothing runs")
@pytest.mark.parametrize("group", ["dataset", "model"])
@pytest.mark.parametrize("target", ["evilmod.X", "fedrobust.commands.cli.os.system", "os.system", "plugmod.Plug"])
def test_an_audit(half: Path, whole: Path, group: str, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    change(half, f"{group}._target_", target)
    assert audit([str(half), "--audit", "neural_cleanse", "--out", str(half / "audit")]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert target in said
    assert RAN == []


@pytest.mark.fault("Foreign folders", "secrets on the command line", "they are in no file of the folder")
@pytest.mark.parametrize(
    "argument",
    [
        "--token=tok3n",
        "--token tok3n",
        "api_key=tok3n",
        "logger.password=tok3n",
        "url=http://me:tok3n@host/x",
        "X_SECRET=tok3n",
    ],
)
def test_secrets_are_not_written(
    half: Path, whole: Path, going_on: GoingOn, argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["flwr-serverapp", *argument.split(), "--insecure"])
    (half / "environment.json").unlink()
    assert going_on(half)[0] == 0
    for path in half.rglob("*"):
        if path.is_file():
            assert b"tok3n" not in path.read_bytes(), path
    assert "***" in (half / "environment.json").read_text()
    assert_same_run(half, whole)
