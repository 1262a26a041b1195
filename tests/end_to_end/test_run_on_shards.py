"""`devices=[...]` divides the parameters for the rule; a run ends where it ends on one device."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedrobust.config.compose import compose_config
from fedrobust.runs.run import run_config

TINY = (
    "model=logistic num_clients=8 attack.num_malicious=2 num_rounds=3 dataset.num_test=1000 client.num_epochs=1 "
    "verbose=false plot_formats=[] checkpoint_every=0 server.num_sampled=7"
)


def model(folder: Path, overrides: str) -> dict[str, torch.Tensor]:
    values, choices = compose_config(f"{TINY} {overrides}".split())
    run_config(values, folder, choices)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("devices", ["cpu,cpu", "auto,cpu"])
def test_a_run_takes_the_devices_that_its_config_allows(tmp_path: Path, devices: str) -> None:
    assert model(tmp_path / "run", f"aggregator=mean devices=[{devices}]")


@pytest.mark.parametrize(
    "overrides",
    [
        "aggregator=coordinate_median",
        "aggregator=fl_trust preaggregator=[clipping]",
        "aggregator=fools_gold preaggregator=[client_momentum] server_optimizer=adam server.learning_rate=0.01",
    ],
)
def test_two_shards_give_what_one_tensor_gives(tmp_path: Path, overrides: str) -> None:
    """But for float32 sums in another order; three rounds of training amplify that a little."""
    one = model(tmp_path / "one", overrides)
    two = model(tmp_path / "two", f"{overrides} devices=[cpu,cpu]")
    assert set(one) == set(two)
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, rtol=1e-4, atol=1e-5)
