"""What the tests of the command line share."""

import pytest


def wrong_input(*cases):
    """A test of ``words`` that one may type, each with what is then said."""
    return pytest.mark.parametrize(("words", "says"), cases,
                                   ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
