"""Deployment: after the last round the model goes out to its users, and somebody may tamper with it there."""

from typing import Any

from fedrobust.attacks.base import ReceivedModel
from fedrobust.attacks.deployed_model import DeployedModelAttack
from fedrobust.evaluation.deployed import measure_tampering
from fedrobust.federation.round import Federation
from fedrobust.parameters import saved_tensors
from fedrobust.records.run_folder import RunFolder
from fedrobust.seeds import torch_generator


def deploy(attack: DeployedModelAttack, federation: Federation, records: RunFolder) -> dict[str, Any]:
    """Let the attacker at the trained model; keep it as released and as deployed, and return what that came to.

    The federation's own model stays as it is.
    """
    state = federation.state
    received = ReceivedModel(federation.model, state.vector, state.buffers, federation.dataset)
    tampering = attack.tamper(received, torch_generator(federation.seed, "deployed model"))
    for name, stored in (("released_model", tampering.released), ("deployed_model", tampering.deployed)):
        tensors = saved_tensors(federation.model, stored.parameters(), state.buffers)
        records.save_model({key: values.cpu() for key, values in tensors.items()}, name)
    return measure_tampering(received, tampering, torch_generator(federation.seed, "random flips"))
