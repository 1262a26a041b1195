"""The hash of weights against hashlib called by hand, and what it sees."""

import hashlib
import struct

import pytest
import torch
from torch import nn

from fedrobust.audits.model import WeightHash


def make_model():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.fill_(number + 0.5)
    return model


def test_digest_by_hand():
    """SHA-256 over "type shape" and the bytes of little-endian floats; over names and digests for the model."""
    expected = hashlib.sha256(b"torch.float32 (2,)\n" + struct.pack("<2f", 1.5, -2.0)).hexdigest()
    known = WeightHash.of({"w": torch.tensor([1.5, -2.0])})
    assert known.tensors == {"w": expected}
    assert known.model == hashlib.sha256(f"w\0{expected}\n".encode()).hexdigest()


def test_an_untouched_model_is_intact_however_it_lies_in_memory():
    model = make_model()
    known = WeightHash.of(model)
    assert known.verify(make_model()).is_intact
    turned = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    turned["0.weight"] = turned["0.weight"].T.contiguous().T
    assert not turned["0.weight"].is_contiguous()
    assert known.verify(turned).is_intact
    assert known.verify(turned).summary() == "intact"


def test_one_flipped_bit_shows_and_where():
    """The lowest bit of one float32: a change of 1.2e-7 of it."""
    model = make_model()
    known = WeightHash.of(model)
    with torch.no_grad():
        model[0].weight.view(torch.int32)[1, 2] ^= 1
    check = known.verify(model)
    assert check.changed == ("0.weight",)
    assert not check.is_intact
    assert check.summary() == "changed: 0.weight"


def test_types_shapes_buffers_and_names_count():
    model = make_model()
    known = WeightHash.of(model)
    state = dict(model.state_dict())
    state["0.weight"] = state["0.weight"].reshape(3, 2)  # the same bytes
    state["1.running_mean"] = state["1.running_mean"] + 1
    state["0.bias"] = state["0.bias"].double()
    state["extra"] = state.pop("1.bias")
    check = known.verify(state)
    assert check.changed == ("0.bias", "0.weight", "1.running_mean")
    assert (check.missing, check.added) == (("1.bias",), ("extra",))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.int8])
def test_every_type_is_read(dtype):
    zeros, ones = torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype)
    assert WeightHash.of({"w": zeros}).verify({"w": zeros.clone()}).is_intact
    assert WeightHash.of({"w": zeros}).verify({"w": ones}).changed == ("w",)
    assert WeightHash.of({"w": torch.empty(0, dtype=dtype)}).model != WeightHash.of({"w": zeros[:1]}).model
    assert WeightHash.of({"w": zeros[0]}).model != WeightHash.of({"w": zeros[:1]}).model


def test_record_is_read_back_and_a_changed_one_is_refused():
    known = WeightHash.of(make_model())
    record = known.to_json()
    assert WeightHash.from_json(record) == known
    tampered = {**record, "tensors": {**record["tensors"], "0.bias": "0" * 64}}
    with pytest.raises(ValueError, match="record of the hash was changed"):
        WeightHash.from_json(tampered)
    with pytest.raises(ValueError, match="needs `tensors`"):
        WeightHash.from_json({"model": known.model})
