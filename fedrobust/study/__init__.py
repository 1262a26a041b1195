"""Studies from Python: play scenarios in this process, go on where a study stopped, and show means with their spread.

`percent(play_scenario(["attack=dba", f"seed={seed}"])[-1]["attack_success_rate"] for seed in range(3))` is the attack
success of the default scenario under DBA, as a table's cell.
"""

from fedrobust.study.arguments import data_root_override, study_parser
from fedrobust.study.cells import measure_cells, measure_parts
from fedrobust.study.play import play_rounds, play_scenario, prepare_scenario
from fedrobust.study.spread import mean_and_deviation, median_and_range, percent
from fedrobust.study.tables import markdown_table, marked_sections
from fedrobust.study.timing import hardware, seconds_in_turns

__all__ = [
    "data_root_override",
    "hardware",
    "markdown_table",
    "marked_sections",
    "mean_and_deviation",
    "measure_cells",
    "measure_parts",
    "median_and_range",
    "percent",
    "play_rounds",
    "play_scenario",
    "prepare_scenario",
    "seconds_in_turns",
    "study_parser",
]
