"""What makes the book: the runner, its cache, the results, the pages."""

import papernets.tools.quick_imports  # noqa: F401  before all others
from papernets.press._new import new_chapter
from papernets.press._results import Status, read_results, status, statuses
from papernets.press._run import Run, RunError, renew_outputs, run_chapter, run_chapters
from papernets.press._watch import Watch

__all__ = ["Run", "RunError", "Status", "Watch", "new_chapter", "read_results", "renew_outputs", "run_chapter",
           "run_chapters", "status", "statuses"]
