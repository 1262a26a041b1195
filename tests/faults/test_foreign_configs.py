"""Folders of runs that somebody else wrote: what their config names is not imported, not run, not resolved, not sent.

Every case is a config.yaml that a stranger may have written. The module `evil_module`, which they name, leaves a file
behind when it is imported, and its component another when it is built.
"""

import copy
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedrobust.audit_command.command import main as audit_main
from fedrobust.commands.cli import main
from fedrobust.config.compose import compose_config
from fedrobust.records.report import main as report_main

AREA = "Foreign folders"
SECRET = "s3cr3t-of-the-user"
TINY = ("model=logistic", "num_clients=4", "attack.num_malicious=1", "num_rounds=1", "client.num_epochs=1")

MODULE = """
from dataclasses import dataclass
from pathlib import Path

Path({imported!r}).touch()


@dataclass(frozen=True)
class Component:
    value: int = 0

    def __post_init__(self) -> None:
        Path({built!r}).touch()
"""

Change = Callable[[dict[str, Any]], None]


@functools.cache
def composed() -> tuple[dict[str, Any], dict[str, str]]:
    return compose_config(TINY)


class Place:
    """An empty folder with the evil modules in reach, and a stopped run of somebody else in `run`."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.imported, self.built = folder / "imported", folder / "built"
        text = MODULE.format(imported=str(self.imported), built=str(self.built))
        for path in ("evil_module.py", "evil_package/__init__.py", "evil_package/inner.py", "fedrobust_evil.py"):
            (folder / "modules" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "modules" / path).write_text(text)
        values, choices = copy.deepcopy(composed())
        self.values = values
        (folder / "run").mkdir()
        (folder / "run" / "choices.json").write_text(json.dumps(choices))
        self.write(yaml.safe_dump(values, sort_keys=False))

    def change(self, change: Change) -> None:
        change(self.values)
        self.write(yaml.safe_dump(self.values, sort_keys=False, allow_unicode=True))

    def write(self, text: str) -> None:
        (self.folder / "run" / "config.yaml").write_text(text, "utf-8")

    def type(self, entry: Callable[[list[str]], Any], *arguments: str) -> tuple[int, str]:
        """Exit code and standard error of a command."""
        try:
            code = entry(list(arguments)) or 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, self._capsys.readouterr().err

    def refused(self, entry: Callable[[list[str]], Any], *arguments: str) -> str:
        """The one line that refuses a command, which must have left the folder and the evil modules alone."""
        before = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        modules = set(sys.modules)
        code, text = self.type(entry, *arguments)
        assert code == 2, text
        lines = text.splitlines()
        assert len(lines) == 1, text
        assert lines[0].isprintable(), text
        assert SECRET not in text
        assert not self.imported.exists()
        assert not self.built.exists()
        assert not [name for name in set(sys.modules) - modules if name.startswith(("evil", "fedrobust_evil"))]
        after = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        assert after == before
        return lines[0]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Place]:
    """See `Place`."""
    found = Place(tmp_path, capsys)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setenv("MY_SECRET_TOKEN", SECRET)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield found
    for name in [name for name in sys.modules if name.startswith(("evil", "fedrobust_evil"))]:
        del sys.modules[name]
    for handler in [one for one in root.handlers if one not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def put(path: str, value: Any) -> Change:
    """Set a nested key; what is missing on the way becomes a mapping."""

    def change(values: dict[str, Any]) -> None:
        *way, last = path.split("/")
        for part in way:
            values = values.setdefault(part, {})
        values[last] = value

    return change


EVIL = {"_target_": "evil_module.Component"}

WHERE = [
    *("dataset", "partition", "model", "client", "attack", "aggregator", "server", "server_optimizer", "watermark"),
    *("audit", "engine", "logger"),
    *("preaggregator/first", "attack/data", "attack/data/trigger", "attack/update", "attack/loss", "attack/schedule"),
    *("attack/initial_model", "attack/deployed_model", "watermark/trigger_set", "audit/method"),
    *("model/new_key", "attack/data/trigger/deep/deeper/deepest", "seed", "new_key"),
]
"""Every place of a config that is a component's, and some that are nobody's."""


@pytest.mark.fault(AREA, "a foreign component somewhere in config.yaml, resume", "one line, nothing is imported or run")
@pytest.mark.parametrize("where", WHERE)
def test_a_component_of_a_stranger_is_refused_wherever_it_stands(place: Place, where: str) -> None:
    place.change(put(where, EVIL))
    line = place.refused(main, "resume=run")
    key = where.replace("/", ".")
    assert f"{key}._target_ must be one of fedrobust's own, got 'evil_module.Component'" in line
    assert "trust=evil_module" in line


@pytest.mark.fault(AREA, "a foreign component somewhere in config.yaml, resume", "one line, nothing is imported or run")
@pytest.mark.parametrize("depth", [1, 2, 40])
def test_a_component_of_a_stranger_in_lists_is_refused(place: Place, depth: int) -> None:
    value: Any = EVIL
    for _ in range(depth):
        value = [1, value]
    place.change(put("client/extra", value))
    assert f"client.extra{'[1]' * depth}._target_ must be" in place.refused(main, "resume=run")


def test_of_two_of_which_one_is_trusted_the_other_is_named_and_neither_runs(place: Place) -> None:
    place.change(put("attack/data", {"_target_": "evil_module.Component"}))
    place.change(put("logger", {"_target_": "evil_package.inner.Component"}))
    line = place.refused(main, "resume=run", "trust=evil_module")
    assert "logger._target_ must be one of fedrobust's own, got 'evil_package.inner.Component'" in line


TARGETS: list[Any] = [
    *("evil_module.Absent", "evil_module", "evil_package.Component", "evil_package.inner.Component"),
    *("fedrobust_evil.Component", "fedrobustevil.Component", "Fedrobust.models.MLP", "evil_module.fedrobust.Component"),
    *(
        "builtins.exec",
        "builtins.eval",
        "builtins.__import__",
        "exec",
        "os.system",
        "subprocess.Popen",
        "shutil.rmtree",
    ),
    *("venv.__main__.main", "antigravity.X", "this.X", "pdb.run", "code.interact", "importlib.import_module"),
    *("hydra.utils.instantiate", "hydra.conf.HydraConf", "flwr.app.Array", "torch.hub.load", "torch.load"),
    *("dataclasses.Field", "logging.config.dictConfig", "pathlib.Path", "runpy.run_path"),
    # Through what the package's own modules have imported.
    *("fedrobust.runs.run.torch.nn.Linear", "fedrobust.runs.run.torch.hub.load", "fedrobust.commands.cli.os.system"),
    *(
        "fedrobust.config.building.hydra.utils.instantiate",
        "fedrobust.config.building.DictConfig",
        "fedrobust.config.building.Path",
    ),
    *(
        "fedrobust.runs.run.OmegaConf",
        "fedrobust.commands.cli.__builtins__.exec",
        "fedrobust.commands.cli.main.__globals__",
    ),
    *("fedrobust.models.__loader__.exec_module", "fedrobust.models.MLP.__class__", "fedrobust.models.MLP.__init__"),
    *(
        "fedrobust.config.building.dataclasses.Field",
        "fedrobust.__main__.main",
        "fedrobust.models.MLP.__module__.upper",
    ),
    # The package's own, but no components.
    *(
        "fedrobust.commands.cli.main",
        "fedrobust.config.building.ConfigError",
        "fedrobust.runs.run.run_config",
        "fedrobust.models",
        "fedrobust",
    ),
    # No names at all, or such as look like another.
    *("", ".", "..", "fedrobust.", ".fedrobust.models.MLP", "fedrobust..models.MLP", "fedrobust.models.MLP ", " "),
    *("evil_module:Component", "./evil_module.py", "/modules/evil_module.Component", "evil_module/Component"),
    *(
        "fedr\u043ebust.models.MLP",
        "fedrobust\u200b.models.MLP",
        "\u202efedrobust.models.MLP",
        "fedrobust.models\x1b[31m",
    ),
    *("evil\nmodule.X", "fedrobust.models.MLP\n", "fedrobust.ｍodels.MLP", "fedrobust.models;import evil_module"),
    *(None, 0, True, 1.5, ["evil_module.Component"], {"_target_": "evil_module.Component"}, "x" * 100_000),
]


@pytest.mark.fault(AREA, "a foreign or malformed _target_, resume and audit", "one line, nothing is imported or run")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: repr(target)[:40].encode("ascii", "replace").decode())
@pytest.mark.parametrize("command", ["resume", "audit"])
def test_no_target_but_a_component_of_the_package(place: Place, target: Any, command: str) -> None:
    place.change(put("model", {"_target_": target}))
    if command == "resume":
        line = place.refused(main, "resume=run")
    else:
        line = place.refused(audit_main, "run", "--audit", "neural_cleanse", "--quick")
    assert "model._target_" in line
    assert len(line) < 600


TAGS = [
    "seed: !!python/object/apply:os.system ['touch built']",
    "seed: !!python/object/new:evil_module.Component []",
    "seed: !!python/name:evil_module.Component",
    "seed: !!python/module:evil_module",
    "model: !!python/object:evil_module.Component {value: 1}",
    "? !!python/object/apply:os.system ['touch built']\n: 1",
    "!!python/object/apply:subprocess.check_call [[touch, built]]",
    "seed: !evil 1",
]


@pytest.mark.fault(AREA, "YAML tags that make objects", "one line, nothing is imported or run")
@pytest.mark.parametrize("text", TAGS)
@pytest.mark.parametrize("entry", ["resume", "audit", "report"])
def test_yaml_tags_make_nothing(place: Place, text: str, entry: str) -> None:
    place.write(text)
    place.refused(*COMMANDS[entry])


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefghi", "bcdefghij")
)
DAMAGED = {
    "aliases that unfold to ten thousand million": BOMB,
    "an alias to itself": "a: &a\n  b: *a\n",
    "nothing but brackets": "a: " + "[" * 5000,
    "deep mappings": "".join(f"{' ' * depth}a:\n" for depth in range(3000)),
    "no YAML": "a: [1",
    "NUL": "seed: \x00",
    "a list": "- 1\n- 2\n",
    "a word": "seed",
    "not UTF-8": "seed: \udcff",
}


@pytest.mark.fault(AREA, "a config.yaml made to cost memory, or damaged", "one line")
@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("entry", ["resume", "audit", "report"])
def test_what_cannot_be_read_is_one_line(place: Place, case: str, entry: str) -> None:
    (place.folder / "run" / "config.yaml").write_bytes(DAMAGED[case].encode("utf-8", "surrogateescape"))
    place.refused(*COMMANDS[entry])


COMMANDS: dict[str, tuple[Any, ...]] = {
    "resume": (main, "resume=run"),
    "audit": (audit_main, "run", "--audit", "neural_cleanse", "--quick"),
    "report": (report_main, "run"),
}

INTERPOLATIONS: dict[str, Change] = {
    "environment": put("data_root", "${oc.env:MY_SECRET_TOKEN}"),
    "amid text": put("data_root", "/tmp/${oc.env:MY_SECRET_TOKEN}/x"),
    "with a default": put("data_root", "${oc.env:ABSENT,${oc.env:MY_SECRET_TOKEN}}"),
    "sent to a tracker": put(
        "logger",
        {
            "_target_": "fedrobust.records.loggers.MLflow",
            "tracking_uri": "http://127.0.0.1:9/${oc.env:MY_SECRET_TOKEN}",
        },
    ),
    "a target": put("model", {"_target_": "${oc.env:MY_SECRET_TOKEN}"}),
    "decoded": put("seed", "${oc.decode:'${oc.env:MY_SECRET_TOKEN}'}"),
    "another key": put("num_rounds", "${seed}"),
    "relative": put("model/new_key", "${..seed}"),
    "by select": put("seed", "${oc.select:num_clients,3}"),
    "created": put("model", "${oc.create:{_target_: evil_module.Component}}"),
    "of hydra": put("seed", "${hydra:runtime.cwd}"),
    "unknown": put("seed", "${nothing:x}"),
    "in a list": put("model/hidden_sizes", [1, "${oc.env:MY_SECRET_TOKEN}"]),
    "in a list of mappings": put("model/new_key", [{"a": [{"b": "${seed}"}]}]),
    "escaped": put("data_root", "\\${oc.env:MY_SECRET_TOKEN}"),
    "a key": put("model/${oc.env:MY_SECRET_TOKEN}", 1),
    "a key of the root": put("${oc.env:MY_SECRET_TOKEN}", 1),
    "cut short": put("data_root", "${oc.env:MY_SECRET_TOKEN"),
    "with dollars": put("data_root", "$${oc.env:MY_SECRET_TOKEN}"),
}


@pytest.mark.fault(AREA, "an interpolation in config.yaml", "one line names the key, nothing is resolved")
@pytest.mark.parametrize("case", INTERPOLATIONS)
@pytest.mark.parametrize("entry", COMMANDS)
def test_interpolations_are_not_resolved(place: Place, case: str, entry: str) -> None:
    place.change(INTERPOLATIONS[case])
    line = place.refused(*COMMANDS[entry])
    if case == "cut short":
        assert "cannot read" in line
    else:
        assert "nothing is looked up" in line
        assert "${" in line


def tensorboard(folder: str) -> Change:
    return put("logger", {"_target_": "fedrobust.records.loggers.TensorBoard", "folder": folder})


def mlflow(uri: str) -> Change:
    return put("logger", {"_target_": "fedrobust.records.loggers.MLflow", "tracking_uri": uri})


def ray(address: str) -> Change:
    return put("engine", {"_target_": "fedrobust.engines.ray.Ray", "address": address})


PLACES: dict[str, tuple[Change, str, str]] = {
    "an absolute folder": (tensorboard("/elsewhere"), "logger.folder", "logger"),
    "down and up": (tensorboard("run/../../x"), "logger.folder", "logger"),
    "a bucket": (tensorboard("s3://bucket/x"), "logger.folder", "logger"),
    "a server": (mlflow("http://127.0.0.1:9/x"), "logger.tracking_uri", "logger"),
    "databricks": (mlflow("databricks"), "logger.tracking_uri", "logger"),
    "a data base": (mlflow("sqlite:////elsewhere/mlflow.db"), "logger.tracking_uri", "logger"),
    "a cluster": (ray("ray://10.0.0.1:10001"), "engine.address", "engine"),
    "a cluster's head": (ray("10.0.0.1:6379"), "engine.address", "engine"),
}


@pytest.mark.fault(AREA, "a logger or a Ray cluster outside the folder", "one line names the place and trust=")
@pytest.mark.parametrize("case", PLACES)
def test_nothing_is_written_or_sent_outside(place: Place, case: str) -> None:
    change, key, group = PLACES[case]
    place.change(change)
    line = place.refused(main, "resume=run")
    assert f"{key} points out of the folder" in line
    assert f"trust={group} allows it" in line


@pytest.mark.fault(
    AREA, "the logger's own place in the folder is a link out of it", "one line, nothing is written there"
)
@pytest.mark.parametrize(
    ("change", "name"),
    [
        (put("logger", {"_target_": "fedrobust.records.loggers.TensorBoard"}), "tensorboard"),
        (put("logger", {"_target_": "fedrobust.records.loggers.MLflow"}), "mlflow.db"),
    ],
)
def test_a_link_in_the_place_of_the_logger_is_not_followed(place: Place, change: Change, name: str) -> None:
    (place.folder / "run" / name).symlink_to(place.folder.parent / "victim")
    place.change(change)
    line = place.refused(main, "resume=run")
    assert line.startswith("fedrobust: logger: ")
    assert name in line
    assert not (place.folder.parent / "victim").exists()


# What may go on.


def test_a_module_that_is_trusted_is_run(place: Place) -> None:
    """`Component` is no logger, which is found out once it was built."""
    place.change(put("logger", EVIL))
    code, text = place.type(main, "resume=run", "trust=evil_module")
    assert code == 2
    assert text.startswith("fedrobust: logger: must be a component of the kind Logger, got Component(value=0)")
    assert place.imported.exists()
    assert place.built.exists()


@pytest.mark.parametrize(
    "trust", ["evil_package", "evil_package.inner", "a, evil_package.inner ,b.c", "z,evil_package"]
)
def test_trust_holds_for_what_is_below_the_module(place: Place, trust: str) -> None:
    place.change(put("logger", {"_target_": "evil_package.inner.Component"}))
    _, text = place.type(main, "resume=run", f"trust={trust}")
    assert "must be a component of the kind Logger" in text


@pytest.mark.fault(AREA, "trust= that does not cover what the folder names", "one line, nothing is imported or run")
@pytest.mark.parametrize(
    "trust",
    ["evil", "evil_package.inner", "evil_module.inner", "evil_modul", "os", "evil_module.Component", "fedrobust"],
)
def test_trust_holds_for_nothing_else(place: Place, trust: str) -> None:
    place.change(put("logger", EVIL))
    assert "logger._target_ must be one of fedrobust's own" in place.refused(main, "resume=run", f"trust={trust}")


@pytest.mark.fault(AREA, "trust= that names nothing", "one line")
@pytest.mark.parametrize("trust", ["", ",", "  ", "evil_module,,x", "${oc.env:MY_SECRET_TOKEN}"])
def test_trust_must_name_something(place: Place, trust: str) -> None:
    assert place.refused(main, "resume=run", f"trust={trust}").startswith("fedrobust: trust: must ")


def test_trust_goes_with_resume_alone(place: Place) -> None:
    line = place.refused(main, "trust=evil_module")
    assert line == "fedrobust: trust: goes with resume=FOLDER; a command line of one's own may name any component"


OF_ANOTHER_KIND = {
    "model": "fedrobust.aggregators.Mean",
    "dataset": "fedrobust.models.MLP",
    "watermark": "fedrobust.models.MLP",
    "seed": [1],
    "data_root": 3,
}


@pytest.mark.fault(AREA, "a component of the package in another's place, or a value of another type", "one line")
@pytest.mark.parametrize(
    ("audit", "group"),
    [
        (audit, group)
        for audit in ("neural_cleanse", "watermark")
        for group in OF_ANOTHER_KIND
        if (audit, group) != ("neural_cleanse", "watermark")
    ],
)
def test_the_audit_looks_at_kinds(place: Place, group: str, audit: str) -> None:
    value = OF_ANOTHER_KIND[group]
    place.change(put(group, {"_target_": value} if isinstance(value, str) else value))
    assert f"{group}: must be " in place.refused(audit_main, "run", "--audit", audit)


def test_the_audit_takes_a_trusted_module(place: Place) -> None:
    place.change(put("model", EVIL))
    line = place.refused(audit_main, "run", "--audit", "neural_cleanse")
    assert "--trust evil_module allows" in line
    code, text = place.type(audit_main, "run", "--audit", "neural_cleanse", "--trust", "evil_module")
    assert (code, "model: must be a component of the kind Architecture, got Component" in text) == (2, True)
    assert place.built.exists()


def test_the_own_command_line_takes_any_component(place: Place) -> None:
    code, text = place.type(main, "~logger", "+logger={_target_:evil_module.Component}", *TINY, "hydra.run.dir=mine")
    assert code == 2
    assert "must be a component of the kind Logger" in text
    assert place.built.exists()


@pytest.mark.parametrize("name", ["HOME", "PATH"])
def test_an_interpolation_of_ones_own_is_resolved_before_it_is_written(place: Place, name: str) -> None:
    overrides = [*TINY, "data_root=${oc.env:" + name + "}", "hydra.run.dir=mine"]
    assert place.type(main, *overrides) == (0, "")
    saved = (place.folder / "mine" / "config.yaml").read_text()
    assert "${" not in saved
    assert os.environ[name] in saved
