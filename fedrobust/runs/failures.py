"""What becomes of a run that ends with an exception: one line, and the traceback in its folder."""

import traceback

from fedrobust.records.full_disk import explain_full_disk
from fedrobust.records.run_folder import RunFolder


def keep_failure(error: Exception, folder: RunFolder) -> str:
    """Write failure.json for the exception that is being handled; returns the line to say."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    reason = explain_full_disk(error, folder.path) or reason
    try:
        folder.write_failure(reason, traceback.format_exc())
    except OSError as second:  # no room for that, either
        return f"{reason}; failure.json cannot be written ({second.strerror}); resume={folder.path} goes on"
    return f"{reason}; what was computed, and the traceback in failure.json, are in {folder.path}"
