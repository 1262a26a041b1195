"""Collecting replies: rows by client id, whatever the order of nodes; what cannot be used is named with its reason."""

import pytest
import torch

from fedrobust.federation.collection import Rejection, Reply, collect, drop_non_finite

D = 3
GLOBAL = torch.zeros(D)
BUFFERS = {"mean": torch.zeros(2), "steps": torch.tensor(0)}


def reply(*clients: int, updates: torch.Tensor | None = None, examples=None, **changes) -> Reply:
    """Client c sends the update (c, c, c), c + 1 examples, the loss c / 10 and buffers c."""
    ids = torch.tensor(clients, dtype=torch.float32)
    values = {
        "clients": clients,
        "updates": ids.unsqueeze(1).expand(-1, D).clone() if updates is None else updates,
        "num_examples": torch.tensor([client + 1 for client in clients] if examples is None else examples),
        "losses": ids / 10,
        "buffers": {"mean": ids.unsqueeze(1).expand(-1, 2).clone(), "steps": torch.tensor(clients)},
        "seconds": 0.1,
    }
    return Reply(**{**values, **changes})


def test_rows_are_sorted_by_client_across_replies():
    collected = collect(range(5), [reply(4, 1), reply(0), reply(3, 2)], [], GLOBAL, BUFFERS)
    ids = torch.arange(5.0)
    assert collected.clients == (0, 1, 2, 3, 4)
    assert torch.equal(collected.updates, ids.unsqueeze(1).expand(-1, D))
    assert torch.equal(collected.num_examples, torch.arange(1, 6))
    assert torch.equal(collected.losses, ids / 10)
    assert torch.equal(collected.buffers["mean"], ids.unsqueeze(1).expand(-1, 2))
    assert torch.equal(collected.buffers["steps"], torch.arange(5))
    assert collected.rejections == ()


def test_the_matrix_of_a_single_node_is_not_copied():
    one = reply(0, 1, 2)
    assert collect(range(3), [one], [], GLOBAL, BUFFERS).updates.data_ptr() == one.updates.data_ptr()


def test_only_the_bad_rows_of_a_reply_are_left_out():
    updates = torch.arange(5.0).unsqueeze(1).expand(-1, D).clone()
    updates[1, 2] = torch.nan
    losses = torch.zeros(5)
    losses[3] = -torch.inf
    buffers = {"mean": torch.zeros(5, 2), "steps": torch.zeros(5, dtype=torch.int64)}
    buffers["mean"][4, 0] = torch.inf
    sent = reply(0, 1, 2, 3, 4, updates=updates, examples=[5, 5, 0, 5, 5], losses=losses, buffers=buffers)
    collected = collect(range(5), [sent], [], GLOBAL, BUFFERS)
    assert collected.clients == (0,)
    assert torch.equal(collected.updates, torch.zeros(1, D))
    assert collected.rejections == (
        Rejection(1, "update contains NaN or infinity"),
        Rejection(2, "num_examples must be positive, got 0"),
        Rejection(3, "loss contains NaN or infinity"),
        Rejection(4, "buffer mean contains NaN or infinity"),
    )


def test_a_huge_row_is_finite_although_its_norm_is_not():
    """3e38 is below float32's largest number, 3.4e38; the sum of three squares is not."""
    collected = collect([0], [reply(0, updates=torch.full((1, D), 3e38))], [], GLOBAL, BUFFERS)
    assert collected.clients == (0,)


def test_strangers_second_answers_and_the_silent_are_named():
    collected = collect([0, 1, 2], [reply(0, 7), reply(0)], [Rejection(1, "failed: x")], GLOBAL, BUFFERS)
    assert collected.clients == (0,)
    assert collected.rejections == (
        Rejection(1, "failed: x"),
        Rejection(7, "was not asked to train in this round"),
        Rejection(0, "answered more than once; the first reply counts"),
        Rejection(2, "did not answer"),
    )


def test_a_good_second_answer_makes_up_for_a_bad_first():
    bad = reply(0, updates=torch.full((1, D), torch.nan))
    collected = collect([0], [bad, reply(0)], [], GLOBAL, BUFFERS)
    assert (collected.clients, len(collected.rejections)) == ((0,), 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_arrive_in_the_models_formats(dtype):
    sent = reply(1, updates=torch.full((1, D), 0.5, dtype=dtype), losses=torch.zeros(1, dtype=dtype))
    sent.buffers["mean"], sent.buffers["steps"] = sent.buffers["mean"].to(dtype), sent.buffers["steps"].to(dtype)
    collected = collect([1], [sent], [], GLOBAL, BUFFERS)
    assert torch.equal(collected.updates, torch.full((1, D), 0.5))
    assert collected.losses.dtype == torch.float32
    assert {name: values.dtype for name, values in collected.buffers.items()} == {
        "mean": torch.float32,
        "steps": torch.int64,
    }


def test_no_usable_reply_gives_an_empty_matrix():
    collected = collect([0, 1], [], [], GLOBAL, BUFFERS)
    assert (collected.clients, tuple(collected.updates.shape), len(collected.num_examples)) == ((), (0, D), 0)
    assert [one.client for one in collected.rejections] == [0, 1]


def test_rows_that_overflow_after_an_attack_are_dropped():
    collected = collect(range(4), [reply(0, 1, 2, 3)], [], GLOBAL, BUFFERS)
    collected.updates[2] *= torch.inf
    left = drop_non_finite(collected, [0, 2])
    assert left.clients == (0, 1, 3)
    assert torch.equal(left.updates[:, 0], torch.tensor([0.0, 1.0, 3.0]))
    assert torch.equal(left.num_examples, torch.tensor([1, 2, 4]))
    assert torch.equal(left.buffers["steps"], torch.tensor([0, 1, 3]))
    assert left.rejections == (Rejection(2, "update contains NaN or infinity"),)
    assert drop_non_finite(left, [0, 1, 2]) is left
