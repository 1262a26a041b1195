"""What an error says, fit for a log and for records: one short line without anything that a terminal obeys.

It may come from a client, and quote whatever that client likes.
"""

import re
import unicodedata

MAX_REASON = 200
"""Characters of a reason in log and records."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])|\x9b[0-?]*[ -/]*[@-~]")
_RAISED = re.compile(r"^\s*((?:[\w]+\.)*\w*(?:Error|Exception|Exit|Interrupt|Warning|Iteration)\b(?::.*)?)$")
_REMOTE = re.compile(r"ray::|Traceback \(most recent call last\)")


def clean_reason(text: str, limit: int = MAX_REASON) -> str:
    r"""`text` on one line of at most `limit` characters, without escape sequences, control and direction characters.

    Of a traceback (of another process) its last line is kept, which says what was raised.

    Example:
        >>> clean_reason("\x1b[31mbad\x1b[0m\nnews")
        'bad news'
    """
    text = _ESCAPES.sub("", text)
    if _REMOTE.search(text):
        lines = text.replace("\\n", "\n").splitlines()
        raised = [found[1] for line in lines if (found := _RAISED.match(_plain(line).rstrip("'>\" ")))]
        text = raised[-1] if raised else text
    line = " ".join(_plain(text).split())
    return line if len(line) <= limit else f"{line[: limit - 4].rstrip()} ..."


def reason_of(error: BaseException, limit: int = MAX_REASON) -> str:
    """`Kind: what it says` of an exception, cleaned."""
    return clean_reason(f"{type(error).__name__}: {error}", limit)


def _plain(text: str) -> str:
    """Without control characters (but white space), and without those that turn the direction of text."""
    return "".join(
        " " if one in "\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029" else one
        for one in text
        if one in "\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029" or unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Co")
    )
