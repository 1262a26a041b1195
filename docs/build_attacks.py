"""Write `docs/attacks.md`: every attack by the stage at which it acts, from the configs and docstrings.

    python docs/build_attacks.py

What an attack costs is the table that `benchmarks/attack_cost/run.py` left.
"""

import re
from pathlib import Path

from fedrobust.commands.registry import AttackEntry, attack_entries
from fedrobust.config.building import config_folder

DOCS = Path(__file__).parent
COSTS = DOCS.parent / "benchmarks" / "attack_cost" / "table.md"
STAGES = {
    "data": (
        "Data: what attackers do to their own examples",
        "In a federation of many, a client's data; with one client, who is the whole training, the pooled data set "
        "(`+experiment=outsourced_badnets`: outsourced training).",
    ),
    "loss": (
        "Loss: what they do to their objective",
        "On a few clients, or on all of them: a poisoned library (`+experiment=code_poisoning`).",
    ),
    "update": (
        "Update: what they do to what they send",
        "They act between collection and aggregation, knowing what `attack.knowledge` grants: their own updates "
        "(`own`), also those of benign clients (`benign`), also the server's rule (`server`).",
    ),
    "initial_model": (
        "Initial model: what the federation starts from",
        "All clients may be benign: the provider of the pretrained model is not.",
    ),
    "deployed_model": (
        "Deployed model: what is done to the model after training",
        "Also without a malicious client (`attack.num_malicious=0`); the model is attacked after the last round and "
        "judged anew, in the summary's `deployed_...` figures.",
    ),
}
"""In the order of a model's life as a federation sees it; an attack stands under the first of its stages."""

EXPERIMENTS = {
    "badnets": "badnets_gtsrb",
    "bfa": "bit_flips",
    "blind_backdoor": "code_poisoning",
    "dba": "dba",
    "explanation_guided": "malware_backdoor",
    "image_scaling": "image_scaling",
    "model_replacement": "model_replacement",
    "neurotoxin": "neurotoxin",
    "poison_frogs": "poison_frogs",
    "pretrained_backdoor": "pretrained",
    "tba": "bit_flips",
    "tbt": "bit_flips",
}
"""Where there are figures; every attack on updates is in `update_attacks`."""

HEAD = """# Attacks

<!-- Written by docs/build_attacks.py; edit the configs, the docstrings or that file. -->

`attack=NAME` chooses one; `fedrobust list attacks` prints this list. An attack is a config with up to five stages
(`initial_model`, `data`, `loss`, `update`, `deployed_model`), and stages of different attacks compose:
`attack=badnets 'attack.update={_target_: fedrobust.attacks.ALIE}'`, or, in the place of an update attack that is there
already, `attack=dba '~attack.update' '+attack.update={_target_: fedrobust.attacks.ALIE}'`. What all have in common:

- **Who**: `num_malicious`, `malicious_fraction` or `malicious_clients`; drawn by the seed. Several triggers, targets or
  kinds of poison at once: `attack=coalition`.
- **When**: `attack.schedule`: listed rounds, or from a round on, in turns, forced into their rounds or as sampled; with
  `until_success` attackers rest, and train as benign clients, while the model does what they want.
- **Judged** by `evaluation/`, never by the attack: the success rate counts test examples whose true class is not the
  wanted one. `control=true` plays a benign twin besides, `control=auto`, the default, where the attack declares no
  synthetic stamp (`edge_case`, `label_flip`, `poison_frogs`, `explanation_guided`; `blend`, `sinusoid`, `image_file`):
  there a clean model may do by itself what the attackers want.
- **Triggers** (`attack/trigger=NAME`): `patch`, `large_patch`, `patch_grid`, `pixels`, `blend`, `sinusoid`,
  `image_file`, `several`; stamped on raw inputs, before augmentation and normalisation.
"""


def page() -> str:
    """The page."""
    entries = [entry for entry in attack_entries() if entry.name != "none"]
    parts = [HEAD]
    for stage, (title, text) in STAGES.items():
        own = [entry for entry in entries if first_stage(entry) == stage]
        lines = [f"## {title}", "", text, "", "| attack | what it does | stages | knows | source | figures |"]
        lines.append("|---|---|---|---|---|---|")
        parts.append("\n".join([*lines, *map(row, own)]) + "\n")
    parts.append(
        "## What an attack costs\n\nA round of the default scenario with each attack; from `python "
        "benchmarks/attack_cost/run.py`, which says what is measured.\n\n" + COSTS.read_text()
    )
    return "\n".join(parts)


def first_stage(entry: AttackEntry) -> str:
    """The stage that an attack is listed under: of a model's life the outermost, else the first."""
    for stage in ("initial_model", "deployed_model", *STAGES):
        if stage in entry.stages:
            return stage
    raise ValueError(f"{entry.name} has none of the stages {', '.join(STAGES)}")


def row(entry: AttackEntry) -> str:
    """One attack."""
    figures = EXPERIMENTS.get(entry.name, "update_attacks" if entry.stages == ("update",) else None)
    link = "" if figures is None else f"[{figures}](../experiments/{figures}/README.md)"
    cells = [f"`{entry.name}`", summary(entry.name), ", ".join(entry.stages), entry.knowledge]
    return "| " + " | ".join([*cells, "; ".join(map(linked, entry.papers)), link]) + " |"


def summary(name: str) -> str:
    """The first sentence of a config's first comment."""
    lines = (config_folder() / "attack" / f"{name}.yaml").read_text().splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in lines[: next_plain(lines)])
    return re.split(r"(?<=[.;]) ", comment)[0].rstrip(".;") + "."


def next_plain(lines: list[str]) -> int:
    """The first line that is no comment."""
    return next(index for index, line in enumerate(lines) if not line.startswith("#"))


def linked(paper: str) -> str:
    """A paper with its first address as a link."""
    address = re.search(r"https?://[^\s,;)]+", paper)
    if address is None:
        return paper
    return f"[{paper[: address.start()].strip(' ,(')}]({address[0]})"


if __name__ == "__main__":
    (DOCS / "attacks.md").write_text(page())
