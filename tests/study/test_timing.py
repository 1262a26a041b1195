import time

import torch

from fedrobust.study import hardware, seconds_in_turns

CPU = torch.device("cpu")


def test_works_take_turns_and_each_has_its_own_times():
    """Sleeping is never shorter than asked for."""
    calls = []

    def work(name, seconds):
        calls.append(name)
        time.sleep(seconds)

    first, second = seconds_in_turns([lambda: work("a", 0.02), lambda: work("b", 0.0)], 3, CPU)
    assert calls == ["a", "b"] * 3
    assert len(first) == len(second) == 3
    assert min(first) >= 0.02
    assert min(second) < 0.02


def test_the_hardware_names_cores_and_version():
    assert "CPU cores" in hardware(CPU)
    assert torch.__version__ in hardware(CPU)
