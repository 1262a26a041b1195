"""The matrix of faults: every test here is one try of a fault, and docs/reliability.md is written from what they got.

A test names its fault by `@pytest.mark.fault(area, title, promised)`; tries are its parameters, or what the test counts
by `count_tries`. By default every eighth try is run; `-m "slow or not slow"` runs all. The page:

    pytest -n0 tests/faults --write-reliability
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_EVERY = 8
_TRIES = pytest.StashKey[int]()
_GOT = pytest.StashKey[dict[tuple[str, str, str], list[int]]]()

HEAD = """# What goes wrong, and what happens then

Each line is a fault that the tests in [tests/faults](../tests/faults) cause on purpose: how often they tried it, in how
many different ways, what is promised, and how often it was kept. None may end in silence: a run goes on to the same
bytes, or says in one line what is wrong and what to do. This page is written by

    pytest -n0 tests/faults --write-reliability

and with `-m "slow or not slow"` there are more tries of kills and of flipped bits.

"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-reliability", action="store_true", help="write docs/reliability.md from what tests got")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_GOT] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of each fault let every eighth try run by default, the first among them: all of them take minutes."""
    if config.getoption("--write-reliability", default=False):
        return
    seen: dict[str, int] = {}
    for item in items:
        if item.get_closest_marker("fault") is None:
            continue
        name = item.nodeid.partition("[")[0]
        seen[name] = seen.get(name, -1) + 1
        if seen[name] % _EVERY:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def count_tries(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """For a test that makes several tries: how many it made."""

    def count(number: int) -> None:
        request.node.stash[_TRIES] = number

    return count


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """Count tries, and those that got what is promised."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    marker = item.get_closest_marker("fault")
    if marker is None or (report.when != "call" and not report.failed) or report.skipped:
        return
    tries = item.stash.get(_TRIES, 1)
    counts = item.config.stash[_GOT].setdefault(marker.args, [0, 0])
    counts[0] += tries
    counts[1] += tries if report.passed else 0


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--write-reliability", default=False):
        PAGE.write_text(page_of(session.config.stash[_GOT]))


def page_of(got: Mapping[tuple[str, str, str], Sequence[int]]) -> str:
    """The page, from tries and kept promises by (area, title, promised)."""
    lines = []
    for area in sorted({area for area, _, _ in got}):
        lines += [f"## {area}", "", "| fault | tries | promised | got |", "|---|--:|---|---|"]
        for (where, title, promised), (tries, kept) in sorted(got.items()):
            if where == area:
                result = "so each time" if kept == tries else f"**{kept} of {tries}**"
                lines.append(f"| {title} | {tries} | {promised} | {result} |")
        lines.append("")
    total, kept = (sum(counts[index] for counts in got.values()) for index in (0, 1))
    summary = f"{total} tries of {len(got)} faults; {kept} got what is promised.\n\n"
    return HEAD + summary + "\n".join(lines).rstrip() + "\n"


@pytest.fixture(autouse=True)
def _quiet(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no pictures: they take seconds, and no fault here is about them."""
    from folders import without_pictures

    if "whole" in request.fixturenames:
        without_pictures(monkeypatch)


@pytest.fixture(scope="session")
def half_and_whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a run that was stopped after round 2 of 4, and of the same run, undisturbed."""
    from folders import SCENARIO, without_pictures

    from fedrobust.commands import cli

    base = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        cli.main([*SCENARIO, f"hydra.run.dir={base / 'whole'}"])
        cli.main([*SCENARIO, f"hydra.run.dir={base / 'half'}", "num_rounds=2"])
    return base / "half", base / "whole"


@pytest.fixture
def whole(half_and_whole: tuple[Path, Path]) -> Path:
    """The folder of a run of four rounds that nobody disturbed."""
    return half_and_whole[1]


@pytest.fixture
def half(half_and_whole: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the folder of that run, stopped after two rounds."""
    return Path(shutil.copytree(half_and_whole[0], tmp_path / "run"))


@pytest.fixture
def going_on(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Resume a folder's run, to four rounds: exit code and standard error."""
    from folders import command

    return lambda folder, *more: command([f"resume={folder}", "num_rounds=4", *more], capsys)
