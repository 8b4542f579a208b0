"""Networks of a paper by name."""

import pytest
from torch import nn

from papernets.nn import Network, Networks


def test_an_unknown_name_lists_the_names():
    networks = Networks({"small": Network(lambda: nn.Linear(3, 2), (3,), config=7), "large": Network(lambda: nn.Linear(9, 2))})
    assert networks["small"].build().in_features == 3 and networks["small"].example.shape == (1, 3)
    assert networks["small"].config == 7 and networks["large"].shape == (3, 32, 32) and list(networks) == ["small", "large"]
    with pytest.raises(ValueError, match=r"^network is 'middle'; choose from small, large$"):
        networks["middle"]
