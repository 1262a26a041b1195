"""What a watcher sees: a bar on a terminal, plain lines elsewhere."""

import io
import logging
from typing import Any

import pytest
from rich.console import Console

from fedrobust.records.console import RunConsole, print_summary

ROWS: list[dict[str, Any]] = [
    {"round": 1, "clean_accuracy": None, "attack_success_rate": None, "num_rejected": 2},
    {"round": 2, "clean_accuracy": 0.912, "attack_success_rate": 0.0625, "num_rejected": 0},
]


def _watch(verbose: bool, is_terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=is_terminal, width=120, color_system=None, legacy_windows=False)
    with RunConsole(verbose, 2, console=console) as view:
        for row in ROWS:
            view.on_round(row)
        view.message("saved [to] /tmp")
    return stream.getvalue()


@pytest.mark.parametrize(("verbose", "is_terminal"), [(False, False), (False, True), (True, False)])
def test_without_a_bar_every_evaluated_round_is_a_log_line(
    verbose: bool, is_terminal: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="fedrobust")
    assert _watch(verbose, is_terminal) == ""
    line, message = caplog.messages
    assert line.startswith("round 2/2  accuracy 91.2 %  attack success 6.2 %  rejected 0  ")
    assert line.endswith("s/round")
    assert message == "saved [to] /tmp"


def test_the_bar_shows_live_figures_and_messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="fedrobust")
    shown = _watch(verbose=True, is_terminal=True)
    assert "2/2" in shown
    assert "accuracy 91.2 %" in shown
    assert "saved [to] /tmp" in shown
    assert caplog.messages == []


def test_the_terminal_is_given_back_after_an_error() -> None:
    """A bar hides the cursor (ESC[?25l); whatever happens, it must be shown again (ESC[?25h)."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, legacy_windows=False)
    with pytest.raises(KeyboardInterrupt), RunConsole(True, 5, start_round=3, console=console):
        raise KeyboardInterrupt
    assert "3/5" in stream.getvalue()
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_summary_is_a_table_of_single_values() -> None:
    stream = io.StringIO()
    summary = {"clean_accuracy": 0.91234, "attack_success_rate": None, "rounds": 12, "norms": [1.0], "rule": "[mean]"}
    print_summary(summary, console=Console(file=stream, width=60))
    lines = [line.split() for line in stream.getvalue().splitlines() if line.strip()]
    assert ["clean", "accuracy", "91.2", "%"] in lines
    assert ["attack", "success", "rate", "-"] in lines
    assert ["rounds", "12"] in lines
    assert ["rule", "[mean]"] in lines
    assert "norms" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
