"""What becomes of a run that ends with an exception: one line, and the traceback in its folder."""

import errno
import traceback

from fedrobust.records.run_folder import RunFolder


def keep_failure(error: Exception, folder: RunFolder) -> str:
    """Write failure.json for the exception that is being handled; returns the line to say."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = f"the disk is full ({error.strerror}) at {error.filename or folder.path}"
    try:
        folder.write_failure(reason, traceback.format_exc())
    except OSError as second:  # no room for that, either
        return f"{reason}; failure.json cannot be written ({second.strerror}); resume={folder.path} goes on"
    return f"{reason}; what was computed, and the traceback in failure.json, are in {folder.path}"
