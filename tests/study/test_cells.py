import json
import os
import time

import pytest

from fedrobust.study import measure_cells, measure_parts

NAMES = ("rule", "seed")
CELLS = [("mean", 0), ("mean", 1), ("krum", 0)]


def test_a_cell_is_measured_once_and_a_study_that_stopped_goes_on(tmp_path):
    """Stopped in the third cell: the first two are on file, and only the third is measured afterwards."""
    path, asked = tmp_path / "results.jsonl", []

    def measure(rule, seed):
        asked.append((rule, seed))
        if asked == CELLS:
            raise KeyboardInterrupt
        return {"figure": len(rule) + seed}

    with pytest.raises(KeyboardInterrupt):
        measure_cells(NAMES, CELLS, measure, path=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"rule": "mean", "seed": 0, "figure": 4}, {"rule": "mean", "seed": 1, "figure": 5}]
    found = measure_cells(NAMES, CELLS, measure, path=path)
    assert asked == [*CELLS, CELLS[2]]
    assert {key: row["figure"] for key, row in found.items()} == {("mean", 0): 4, ("mean", 1): 5, ("krum", 0): 4}
    assert measure_cells(NAMES, CELLS, measure, path=path) == found
    assert len(asked) == 4


def test_what_is_on_file_and_not_asked_for_is_given_too(tmp_path):
    path = tmp_path / "results.jsonl"
    measure_cells(NAMES, CELLS, lambda rule, seed: {}, path=path)
    assert list(measure_cells(NAMES, [], lambda rule, seed: {}, path=path)) == CELLS


def test_without_a_file_everything_is_measured_anew():
    asked = []

    def measure(*key):
        asked.append(key)
        return {}

    measure_cells(NAMES, CELLS, measure)
    measure_cells(NAMES, CELLS, measure)
    assert asked == [*CELLS, *CELLS]


@pytest.mark.slow
def test_in_two_processes_cells_come_to_the_same(tmp_path):
    """Whichever ends first is written first; a study that stopped goes on, and what was asked ran elsewhere."""

    def measure(rule, seed):
        return {"figure": len(rule) + seed, "process": os.getpid()}

    path = tmp_path / "results.jsonl"
    measure_cells(NAMES, CELLS[:1], measure, path=path)
    found = measure_cells(NAMES, CELLS, measure, path=path, processes=2)
    assert {key: row["figure"] for key, row in found.items()} == {("mean", 0): 4, ("mean", 1): 5, ("krum", 0): 4}
    assert [row["process"] == os.getpid() for row in map(found.__getitem__, CELLS)] == [True, False, False]
    assert len(path.read_text().splitlines()) == 3


def test_parts_are_measured_once_each_in_its_way_and_timed(tmp_path):
    path, asked = tmp_path / "results.jsonl", []

    def wait():
        asked.append("long")
        time.sleep(0.02)
        return {"figure": 1}

    parts = {"long": wait, "short": lambda: {"other": 2}}
    found = measure_parts(parts, path=path)
    assert {name: set(row) for name, row in found.items()} == {
        "long": {"figure", "seconds"},
        "short": {"other", "seconds"},
    }
    assert found["long"]["seconds"] >= 0.02
    assert [json.loads(line)["part"] for line in path.read_text().splitlines()] == ["long", "short"]
    assert measure_parts(parts, path=path) == found
    assert asked == ["long"]
