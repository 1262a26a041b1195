"""Command lines and log lines without what must not be published."""

import logging
import re
from collections.abc import Sequence

_NAME = (
    r"[\w.\-]*(?:token|passw(?:or)?d|passphrase|\bpwd|secret|api[_-]?key|private[_-]?key|access[_-]?key|auth[_-]?key"
    r"|\bauth\b|authorization|credential|\bsig(?:nature)?\b)[\w.\-]*"
)
_FLAG = re.compile(rf"^-{{1,2}}{_NAME}$", re.IGNORECASE)
_PAIR = re.compile(rf"^(.*?{_NAME})([=:])(.+)$", re.IGNORECASE | re.DOTALL)
_PAIR_IN_TEXT = re.compile(rf"((?<![\w/]){_NAME}=)[^\s,;&)'\"]+", re.IGNORECASE)
_USER = re.compile(r"(\w[\w+.\-]*\\?://)\S*@")  # a backslash: as Hydra escapes a colon in the name of a cell
_SCHEME = re.compile(r"((?:bearer|basic|digest)\s+)\S+", re.IGNORECASE)
HIDDEN = "***"


def masked(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command, with `***` for tokens, passwords, keys, and for who logs in at a URL.

    Example:
        >>> masked(["run", "--token", "96360e", "logger.tracking_uri=http://me:pass@host/"])
        ['run', '--token', '***', 'logger.tracking_uri=http://***@host/']
    """
    found: list[str] = []
    hides_next = False
    for argument in arguments:
        if hides_next:
            found.append(HIDDEN)
            hides_next = False
            continue
        hides_next = bool(_FLAG.match(argument))
        shown = argument if hides_next else _PAIR.sub(rf"\1\2{HIDDEN}", argument)
        found.append(_without_login(shown))
    return found


def masked_text(text: str) -> str:
    """A line of a log, with `***` for who logs in at a URL, and for the values of keys that name a secret.

    Example:
        >>> masked_text("no answer from http://me:pass@host/ (token=96360e)")
        'no answer from http://***@host/ (token=***)'
    """
    return _without_login(_PAIR_IN_TEXT.sub(rf"\1{HIDDEN}", text))


class Masks(logging.Filter):
    """Masks every line that passes a logger."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the line pass, masked."""
        text = record.getMessage()
        if (shown := masked_text(text)) != text:
            record.msg, record.args = shown, ()
        return True


def _without_login(text: str) -> str:
    return _SCHEME.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1{HIDDEN}@", text))
