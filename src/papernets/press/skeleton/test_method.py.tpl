"""$name: the functions on tensors, the layers and the verb."""

import pytest
import torch
from paper_checks import EXAMPLE, network

from papernets.papers.$module import $config, treat_


def test_the_verb_leaves_a_network_that_computes():
    model = network()
    treat_(model, $config())
    assert torch.isfinite(model(EXAMPLE)).all()


def test_a_share_outside_is_refused():
    with pytest.raises(ValueError, match=r"removed 1\.5 is outside \[0, 1\); the nearest is 0\.99"):
        $config(removed=1.5)
