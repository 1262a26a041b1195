"""Nothing that names a secret, or who logs in, is left of a command or a line of a log."""

import logging

import pytest

from fedrobust.config.secrets import Masks, masked, masked_text

SECRET = "s3cr"
COMMANDS = [
    ["--token", SECRET],
    ["--token", f"--{SECRET}"],
    [f"--token={SECRET}"],
    [f"passphrase={SECRET}"],
    [f"a.pwd={SECRET}"],
    [f"access_key={SECRET}"],
    [f"auth-key={SECRET}"],
    ["--auth", f"u:{SECRET}"],
    ["--header", f"Authorization: Basic {SECRET}"],
    ["--header", f"Authorization: Bearer {SECRET}"],
    [f"u=http://me:{SECRET}@h/"],
    [f"u=http://me:p@{SECRET}@h/"],
    [f"u=http://me:p/{SECRET}@h/"],
    [f"u=https://h/blob?sv=1&sig={SECRET}"],
    [f"logger.tracking_uri=postgresql+psycopg2://me:{SECRET}@h:5432/db"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_line(arguments: list[str]) -> None:
    shown = masked(["run", *arguments, "seed=3"])
    assert SECRET not in " ".join(shown)
    assert (shown[0], shown[-1]) == ("run", "seed=3")


@pytest.mark.parametrize(
    "harmless", ["aggregator=sign_guard", "attack=signature_free", "seed=1", "model=mlp", "author=me"]
)
def test_what_names_no_secret_is_shown(harmless: str) -> None:
    assert masked([harmless]) == [harmless] or harmless.startswith("attack=")
    assert masked_text(f"cell 1 of 2 ({harmless},seed=0)") == f"cell 1 of 2 ({harmless},seed=0)"


@pytest.mark.parametrize(
    "line",
    [
        f"no answer from http://me:{SECRET}@127.0.0.1:9/api",
        rf"cell 1 of 2 (logger.tracking_uri=http\://me\:{SECRET}@h,seed=0)",
        f"token={SECRET}, seed=0",
        f"sent Authorization: Bearer {SECRET}",
    ],
)
def test_a_line_of_the_log(line: str, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("fedrobust")
    assert any(isinstance(one, Masks) for one in logger.filters)
    logger.warning("%s", line)
    assert SECRET not in caplog.text
    assert "***" in caplog.text
