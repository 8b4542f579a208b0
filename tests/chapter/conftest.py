"""A chapter of a card that no paper has."""

import pytest
from claim_checks import made

from papernets.chapter import Chapter, _chapter


@pytest.fixture
def chapter(monkeypatch):
    def build(*claims, profile="quick", seed=0):
        monkeypatch.setattr(_chapter, "card", lambda name: made(*claims))
        return Chapter("odd", profile, seed)
    return build
