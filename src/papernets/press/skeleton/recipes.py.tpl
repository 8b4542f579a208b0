"""The full-size runs of $name on the real data."""

from collections.abc import Callable

from papernets.training import Recipe

#: By the names that the card gives to ``papernets train $slug --config``.
RECIPES: dict[str, Callable[[], Recipe]] = {}
