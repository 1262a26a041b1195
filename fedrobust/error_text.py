"""What an error says, fit for a log and for records: one short line without anything that a terminal obeys.

It may come from a client, and quote whatever that client likes.
"""

import re
import unicodedata

MAX_REASON = 200
"""Characters of a reason in log and records."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])|\x9b[0-?]*[ -/]*[@-~]")
_RAISED = re.compile(r"^\s*((?:[\w]+\.)*\w*(?:Error|Exception|Exit|Interrupt|Warning|Iteration)\b(?::.*)?)$")
_WRAPPED = re.compile(r"<class '([\w.<>()]+)'>:<'(.*)'>\Z", re.DOTALL)
"""How Flower writes an exception into the reason of an error."""
_CAUSED = "\n\nThe above exception was the direct cause of the following exception:\n\n"
_FRAME = re.compile(r'^  File "[^\n]*\n(?:    [^\n]*\n)*', re.MULTILINE)
_LOOKED_AT = 20_000  # characters: of a longer text its beginning and its end are read
_REMOTE = re.compile(r"ray::|Traceback \(most recent call last\)")


def clean_reason(text: str, limit: int = MAX_REASON) -> str:
    r"""`text` on one line of at most `limit` characters, without escape sequences, control and direction characters.

    Of a traceback (of another process) its last line is kept, which says what was raised.

    Example:
        >>> clean_reason("\x1b[31mbad\x1b[0m\nnews")
        'bad news'
    """
    text = _ESCAPES.sub("", text[:_LOOKED_AT])
    if _REMOTE.search(text):
        lines = text.replace("\\n", "\n").splitlines()
        raised = [found[1] for line in lines if (found := _RAISED.match(_plain(line).rstrip("'>\" ")))]
        text = raised[-1] if raised else text
    line = " ".join(_plain(text).split())
    return line if len(line) <= limit else f"{line[: limit - 4].rstrip()} ..."


def said_by_node(reason: str | None) -> str:
    """What a Flower error says, as `ValueError: boom`: Flower wraps it in its type, Ray in tracebacks of two processes.

    Args:
        reason: of the error.
    """
    text = reason or ""
    if len(text) > _LOOKED_AT:
        text = f"{text[: _LOOKED_AT // 2]}\n{text[-_LOOKED_AT // 2 :]}"
    wrapped = _WRAPPED.match(text.strip())
    if wrapped is None:
        return clean_reason(text) or "no reason given"
    kind, said = wrapped[1].rpartition(".")[2], wrapped[2]
    cause = _cause(said)
    return clean_reason(said if cause is None and _REMOTE.search(said) else cause or f"{kind}: {said}")


def _cause(text: str) -> str | None:
    """The exception that a traceback of Ray's ends with, or that Flower's own tells of."""
    parts = text.split(_CAUSED)
    is_wrapped = len(parts) > 1 and "ClientAppException" in parts[-1]
    last = parts[-2] if is_wrapped else parts[-1]
    frames = list(_FRAME.finditer(last))
    if frames:
        return last[frames[-1].end() :].strip() or None
    # Ray leaves frames of its own out: then a line about the process comes before the error.
    return last.partition("\n")[2].strip() or None if is_wrapped else None


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
