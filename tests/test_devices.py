import pytest
import torch

from fedrobust.config.component import FieldError
from fedrobust.devices import select_device


def test_auto_is_the_first_gpu_or_the_cpu():
    assert select_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_cpu_is_always_there():
    assert select_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["tpu", "cuda:77", "nonsense", ""])
def test_what_is_not_there_is_named_with_its_key_and_what_is_there(name):
    with pytest.raises(FieldError, match=f"must be one of auto, cpu.*, got '{name}'") as caught:
        select_device(name, field="devices")
    assert caught.value.field == "devices"
