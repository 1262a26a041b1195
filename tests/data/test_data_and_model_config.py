"""Every file of conf/dataset, conf/partition and conf/model builds its component and spells out all its defaults."""

import dataclasses
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted(file for group in ("dataset", "partition", "model") for file in (CONF / group).glob("*.yaml"))


def test_the_groups_are_there() -> None:
    assert {file.parent.name for file in FILES} == {"dataset", "partition", "model"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_config_lists_the_defaults(file: Path) -> None:
    config = OmegaConf.load(file)
    built = instantiate(config, _convert_="all")
    names = {field.name for field in dataclasses.fields(built)}
    assert {str(key) for key in config} == names | {"_target_"}
    default = type(built)()
    for name in names:
        value, expected = getattr(built, name), getattr(default, name)
        assert (
            (list(value), type(value)) == (list(expected), list) if isinstance(expected, tuple) else value == expected
        )
