"""The page of watermarks: its commands can run, its example does, its figures are those of the experiment."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from fedrobust.audit_command.command import MODEL_AUDITS
from fedrobust.audit_command.command import main as audit
from fedrobust.commands.registry import watermark_entries
from fedrobust.config.compose import compose_config
from fedrobust.runs.run import run_config
from fedrobust.scenario import build_scenario

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "watermarks.md").read_text("utf-8")
README = (ROOT / "experiments" / "watermark" / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^<!-- run -->\n```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line) for block in BLOCKS for line in block.splitlines()]
RUNS = [words[1:] for words in COMMANDS if words[0] == "fedrobust"]
AUDITS = [words[1:] for words in COMMANDS if words[0] == "fedrobust-audit"]


def table_rows(text: str, heading: str) -> dict[str, list[str]]:
    """The cells of the rows below the heading, by the row's name."""
    lines = text[text.index(heading) :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: others for first, *others in cells}


def test_every_watermark_is_on_the_page_with_how_it_labels():
    rows = table_rows(PAGE, "| `watermark` |")
    assert {name.strip("`"): cells[1] for name, cells in rows.items()} == {
        entry.name: entry.labels for entry in watermark_entries()
    }


@pytest.mark.parametrize("words", RUNS, ids=lambda words: " ".join(words[1:3]))
def test_the_runs_are_ones_that_can_be_made(words):
    scenario = build_scenario(compose_config([word for word in words if not word.startswith("hydra.")])[0])
    assert "watermark=" not in " ".join(words) or "NoWatermark" not in type(scenario.watermark).__name__


def test_the_audits_say_what_the_page_says(tmp_path: Path, monkeypatch, capsys):
    """Runs of five rounds in place of thirty: the owner's model is found (exit code 1), an unmarked one is not."""
    monkeypatch.chdir(tmp_path)
    for words in RUNS:
        folder = next((word.removeprefix("hydra.run.dir=") for word in words if word.startswith("hydra.")), None)
        if folder is not None:
            own = [word for word in words if not word.startswith("hydra.")]
            options = [*own, "num_rounds=5", "num_clients=5", "verbose=false", "plot_formats=[]", "checkpoint_every=0"]
            values, choices = compose_config(options)
            run_config(values, tmp_path / folder, choices)
    codes = {" ".join(words): audit([*words, "--out", f"audit{place}"]) for place, words in enumerate(AUDITS)}
    assert all("--audit watermark" in words and "watermark" in MODEL_AUDITS for words in codes)
    assert [codes[words] for words in codes] == [0 if words.startswith("outputs/unmarked") else 1 for words in codes]
    assert capsys.readouterr().err == ""


def test_the_example_runs_and_tells_marked_from_unmarked(capsys):
    torch.manual_seed(0)
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(example, "docs/watermarks.md", "exec"), {})
    verdicts = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert verdicts == ["True", "True", "False"]


def test_the_figures_are_those_of_the_experiment():
    """The table's columns are among those of the experiment's tables; every other mean ± deviation is in its page."""
    rows = table_rows(PAGE, "| trigger set | as trained |")
    accuracy = table_rows(README, "| trigger set | triggers |")
    owner = table_rows(README, "| owner recognised |")
    assert rows.keys() == accuracy.keys()
    for name, cells in rows.items():
        # The experiment's columns: triggers, as trained, fine-tuned, new head, pruned 30, 50, 70, 80, 90 %.
        expected = [accuracy[name][place] for place in (1, 2, 3, 5, 8)] + [owner[name][place] for place in (1, 7)]
        assert cells == expected, name
    for figure in re.findall(r"\d+\.\d ± \d+\.\d", " ".join(PAGE.split())):
        assert figure in README, figure
    assert {row[-1] for row in owner.values()} == {"0 of 25"}
