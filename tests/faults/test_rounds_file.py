import json
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import assert_one_line, assert_same_run

Lines = list[bytes]
GoingOn = Callable[..., tuple[int, str]]


def without(*numbers: int) -> Callable[[Lines], Lines]:
    return lambda lines: [line for number, line in enumerate(lines) if number not in numbers]


def with_line(number: int, line: bytes) -> Callable[[Lines], Lines]:
    return lambda lines: [*lines[:number], line, *lines[number + 1 :]]


DAMAGED: dict[str, Callable[[Lines], Lines]] = {
    "empty": lambda lines: [],
    "one newline": lambda lines: [b"\n"],
    "the first line alone": lambda lines: lines[:1],
    "the last line alone": lambda lines: lines[-1:],
    "no first line": without(0),
    "a hole": without(1),
    "no last line": without(2),
    "no first and last line": without(0, 2),
    "the first line twice": lambda lines: [lines[0], *lines],
    "a line in the middle twice": lambda lines: [lines[0], lines[1], lines[1], lines[2]],
    "everything twice": lambda lines: lines + lines,
    "backwards": lambda lines: lines[::-1],
    "two lines exchanged": lambda lines: [lines[0], lines[2], lines[1]],
    "text in the first line": with_line(0, b"hello\n"),
    "text in the middle": with_line(1, b"hello\n"),
    "NUL bytes in the middle": with_line(1, bytes(40) + b"\n"),
    "an empty line in the middle": with_line(1, b"\n"),
    "a number in the middle": with_line(1, b"17\n"),
    "null in the middle": with_line(1, b"null\n"),
    "a list in the middle": with_line(1, b"[1, 2]\n"),
    "an object without a round": with_line(1, b"{}\n"),
    "a round that is text": with_line(1, b'{"round": "1"}\n'),
    "a round that is a fraction": with_line(1, b'{"round": 1.0}\n'),
    "a negative round": with_line(1, b'{"round": -1}\n'),
    "bytes that are no text": with_line(1, b"\xff\xfe\xfa\n"),
    "two lines in one": lambda lines: [lines[0].rstrip() + lines[1], *lines[2:]],
    "half of the middle line": lambda lines: [lines[0], lines[1][: len(lines[1]) // 2] + b"\n", lines[2]],
    "half of the middle line, its end lost": lambda lines: [lines[0], lines[1][: len(lines[1]) // 2] + lines[2]],
    "a huge number in a line": with_line(1, b'{"round": ' + b"9" * 5000 + b"}\n"),
    "deep nesting in a line": with_line(1, b"[" * 100_000 + b"\n"),
}


def damaged(half: Path, change: Callable[[Lines], Lines]) -> Path:
    path = half / "rounds.jsonl"
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    return path


@pytest.mark.fault("Rounds' records", "rounds.jsonl does not fit", "one line and a way on; then the same bytes")
@pytest.mark.parametrize("name", DAMAGED)
def test_refused(half: Path, whole: Path, going_on: GoingOn, name: str) -> None:
    path = damaged(half, DAMAGED[name])
    before, summary = path.read_bytes(), (half / "summary.json").read_bytes()
    code, said = going_on(half)
    assert_one_line(code, said)
    assert "rounds.jsonl" in said
    assert "from=0 plays all rounds again" in said
    assert path.read_bytes() == before
    assert (half / "summary.json").read_bytes() == summary
    code, said = going_on(half, "from=0")
    assert code == 0, said
    assert_same_run(half, whole)


@pytest.mark.fault("Rounds' records", "rounds.jsonl is lost", "one line and a way on; no summary is lost")
@pytest.mark.parametrize("finished", [False, True])
def test_lost(half: Path, whole: Path, going_on: GoingOn, finished: bool) -> None:
    if finished:
        assert going_on(half)[0] == 0
    (half / "rounds.jsonl").unlink()
    summary = (half / "summary.json").read_bytes()
    code, said = going_on(half)
    assert_one_line(code, said)
    assert "holds none" in said
    assert (half / "summary.json").read_bytes() == summary
    assert going_on(half, "from=0")[0] == 0
    assert_same_run(half, whole)


@pytest.mark.fault("Rounds' records", "a last line that a kill or a power cut has torn", "the same bytes")
@pytest.mark.parametrize("tail", [b"{", b'{"round": 3, "clean', b"x", bytes(100), b'{"round": 3}\n{"rou', b"\xff"])
def test_torn(half: Path, whole: Path, going_on: GoingOn, tail: bytes) -> None:
    path = half / "rounds.jsonl"
    path.write_bytes(path.read_bytes() + tail)
    code, said = going_on(half)
    assert code == 0, said
    assert_same_run(half, whole)


@pytest.mark.fault("Rounds' records", "rounds that a killed run played after its last checkpoint", "the same bytes")
@pytest.mark.parametrize("more", [1, 2])
def test_rounds_after_the_checkpoint(half: Path, whole: Path, going_on: GoingOn, more: int) -> None:
    path = half / "rounds.jsonl"
    lines = (whole / "rounds.jsonl").read_bytes().splitlines(keepends=True)
    path.write_bytes(path.read_bytes() + b"".join(lines[3 : 3 + more]))
    code, said = going_on(half)
    assert code == 0, said
    assert_same_run(half, whole)
    assert [json.loads(line)["round"] for line in path.read_bytes().splitlines()] == [0, 1, 2, 3, 4]
