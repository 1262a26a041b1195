"""TensorArray, held to Flower's own `Array` of the same numbers."""

import pickle

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedrobust.flower.tensor_array import TensorArray, tensor_of

CPU = torch.device("cpu")
TENSORS = {
    "matrix": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7,
    "double": torch.tensor([1.5, float("nan"), float("inf")], dtype=torch.float64),
    "integers": torch.tensor([3, -1]),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
    "booleans": torch.tensor([True, False]),
    "transposed": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
}


@pytest.fixture(params=TENSORS)
def tensor(request: pytest.FixtureRequest) -> torch.Tensor:
    return TENSORS[request.param]


def test_fields_and_bytes_are_those_of_flowers_array(tensor: torch.Tensor) -> None:
    ours, theirs = TensorArray(tensor), Array(tensor.numpy())
    assert (ours.dtype, ours.shape, ours.stype) == (theirs.dtype, theirs.shape, theirs.stype)
    assert ours.data == theirs.data


def test_inside_a_process_the_tensor_itself_arrives() -> None:
    tensor = torch.arange(5.0)
    assert tensor_of(TensorArray(tensor), CPU).data_ptr() == tensor.data_ptr()


def test_gradients_do_not_travel() -> None:
    tensor = torch.ones(2, requires_grad=True)
    assert not tensor_of(TensorArray(tensor), CPU).requires_grad


def test_a_pickled_one_is_a_plain_array(tensor: torch.Tensor) -> None:
    array = pickle.loads(pickle.dumps(TensorArray(tensor)))
    assert type(array) is Array
    np.testing.assert_array_equal(array.numpy(), tensor.numpy())


def content(array: Array) -> RecordDict:
    record = ArrayRecord()
    record["vector"] = array  # its constructor would make copies
    return RecordDict({"model": record})


def test_flowers_object_store_sees_a_plain_array(tensor: torch.Tensor) -> None:
    """SuperLink and SuperNodes exchange objects by id, each inflated by the class that its header names."""
    ours, theirs = content(TensorArray(tensor)), content(Array(tensor.numpy()))
    assert type(ours.array_records["model"]["vector"]) is TensorArray
    contents = {key: item.deflate() for key, item in get_all_nested_objects(ours).items()}
    assert contents == {key: item.deflate() for key, item in get_all_nested_objects(theirs).items()}
    received = inflate_object_from_contents(ours.object_id, contents)
    assert isinstance(received, RecordDict)
    array = received.array_records["model"]["vector"]
    np.testing.assert_array_equal(array.numpy(), tensor.numpy())
    torch.testing.assert_close(tensor_of(array, CPU), tensor, rtol=0, atol=0, equal_nan=True)


def test_a_tensor_read_from_bytes_can_be_written_to() -> None:
    tensor_of(Array(np.zeros(3, dtype=np.float32)), CPU).add_(1)


@pytest.mark.parametrize("values", [np.array(["a", "b"]), np.array([1 + 2j])])
def test_what_is_no_number_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="array must hold numbers, got"):
        tensor_of(Array(values), CPU)


def test_pickles_within_bytes_are_refused() -> None:
    array = Array(np.zeros(1))
    array.data = pickle.dumps("anything")
    with pytest.raises(ValueError, match="pickle"):
        tensor_of(array, CPU)
