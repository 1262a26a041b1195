"""Command lines without what must not be published."""

import re
from collections.abc import Sequence

_NAME = r"[\w.\-]*(?:token|passw(?:or)?d|secret|api[_-]?key|private[_-]?key|credential)[\w.\-]*"
_FLAG = re.compile(rf"^-{{1,2}}{_NAME}$", re.IGNORECASE)
_PAIR = re.compile(rf"^(.*?{_NAME})([=:])(.+)$", re.IGNORECASE | re.DOTALL)
_USER = re.compile(r"(\w[\w+.\-]*://)[^/@\s]+@")
_BEARER = re.compile(r"(bearer\s+)\S+", re.IGNORECASE)
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
        if hides_next and not argument.startswith("--"):
            found.append(HIDDEN)
            hides_next = False
            continue
        hides_next = bool(_FLAG.match(argument))
        shown = argument if hides_next else _PAIR.sub(rf"\1\2{HIDDEN}", argument)
        found.append(_BEARER.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1{HIDDEN}@", shown)))
    return found
