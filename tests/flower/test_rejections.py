"""However many clients are rejected, a round says so in one line."""

import pytest

from fedrobust.flower.rejections import rejections_line


@pytest.mark.parametrize(
    ("rejected", "line"),
    [
        ([(3, "late")], "client 3 rejected: late"),
        ([(None, "unreadable")], "client unknown rejected: unreadable"),
        ([(3, "late"), (5, "late")], "clients 3, 5 rejected: late"),
        ([(3, "late"), (1, "NaN"), (5, "late")], "clients 3, 5 rejected: late; client 1 rejected: NaN"),
        ([(k, "NaN") for k in range(10)], "clients 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 rejected: NaN"),
        ([(k, "NaN") for k in range(1000)], "clients 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 990 more rejected: NaN"),
    ],
)
def test_clients_are_grouped_by_reason(rejected, line):
    assert rejections_line([{"client": client, "reason": reason} for client, reason in rejected], "client") == line
    assert rejections_line([{"node": node, "reason": "x"} for node in (4, 8)], "node") == "nodes 4, 8 rejected: x"
