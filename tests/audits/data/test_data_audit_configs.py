"""The configs of the data audits: one for each, with the defaults that Python users get."""

import pytest
import yaml

from fedrobust.audits import DATA_AUDITS
from fedrobust.config.building import build, config_folder

NAMES = {"ActivationClustering", "FrequencyDetector", "SpectralSignatures", "Strip"}


def node_of(kind: type) -> dict[str, object]:
    """Of the file whose name is the class's, in snake case."""
    name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__).lstrip("_")
    return yaml.safe_load((config_folder() / "audit" / "method" / f"{name}.yaml").read_text())


def test_there_is_one_for_each():
    assert {kind.__name__ for kind in DATA_AUDITS} == NAMES


@pytest.mark.parametrize("kind", DATA_AUDITS)
def test_a_config_builds_the_defaults(kind):
    assert build(node_of(kind), "audit") == kind()


@pytest.mark.parametrize("kind", DATA_AUDITS)
def test_a_config_names_every_field(kind):
    assert set(node_of(kind)) == {"_target_", *kind.__dataclass_fields__}
