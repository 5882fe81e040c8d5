"""`nogaps check`: is a submission valid? Every finding says what is wrong, where, and the fix."""

from nogaps.submission.arrays import RESULT, check_array
from nogaps.submission.findings import Finding
from nogaps.submission.folder import (
    DELIVERABLES,
    as_text,
    check_submission,
    notebook_of,
    report,
    verdict,
)
from nogaps.submission.notebook import NOTEBOOK, check_notebook

__all__ = [
    "DELIVERABLES",
    "NOTEBOOK",
    "RESULT",
    "Finding",
    "as_text",
    "check_array",
    "check_notebook",
    "check_submission",
    "notebook_of",
    "report",
    "verdict",
]
