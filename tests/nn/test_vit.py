"""Vision transformers: attention by torch's own, branches left out as often as they should be, and refusals."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from papernets.nn import DeiT

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(**options):
    torch.manual_seed(0)
    return DeiT(16, 3, 4, 8, 4, 5, **options)


@pytest.mark.parametrize("bias", [True, False])
def test_a_block_is_that_of_torch(bias):
    """Layer norm first, heads side by side, queries before keys before values."""
    block = tiny(bias=bias, ratio=3).blocks[0]
    peer = nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        peer.in_proj_weight.copy_(block.attn.qkv.weight)
        peer.in_proj_bias.copy_(block.attn.qkv.bias if bias else torch.zeros(48))
        peer.out_proj.weight.copy_(block.attn.proj.weight)
        peer.out_proj.bias.copy_(block.attn.proj.bias)
    x = torch.randn(2, 5, 16)
    seen = F.layer_norm(x, (16,), block.norm1.weight, block.norm1.bias, 1e-6)
    expected = x + peer(seen, seen, seen, need_weights=False)[0]
    expected = expected + block.fc2(F.gelu(block.fc1(F.layer_norm(expected, (16,), None, None, 1e-6))))
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)
    assert block.fc1.out_features == 48


def test_the_answer_is_read_off_the_token():
    model = tiny()
    x = torch.randn(2, 3, 8, 8)
    tokens = F.conv2d(x, model.patches.weight, model.patches.bias, 4).flatten(2).transpose(1, 2)  # rows of patches
    tokens = torch.cat([model.token.expand(2, 1, 16), tokens], 1) + model.places
    for block in model.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(model(x), model.classifier(model.norm(tokens[:, 0])))


@pytest.mark.parametrize("drop", [0.25, [0.0, 0.25, 0.6]])
def test_branches_are_left_out_of_training_for_a_share_of_the_images(drop):
    model, x = tiny(drop=drop).train(), torch.randn(1, 5, 16)
    for block, share in zip(model.blocks, drop if isinstance(drop, list) else [drop] * 3):
        branch = block.attn(block.norm1(x)).expand(4000, 5, 16)
        kept = block._sometimes(branch)
        gone = (kept == 0).flatten(1).all(1)
        assert gone.float().mean() == pytest.approx(share, abs=0.03)
        torch.testing.assert_close(kept[~gone], branch[~gone] / (1 - share))  # the mean over many steps is that of evaluation
        assert torch.equal(block.eval()._sometimes(branch), branch)


@pytest.mark.parametrize(("options", "says"), [
    (dict(drop=1.0), r"drop 1.0 is outside \[0, 1\); the nearest is 0.99"),
    (dict(drop=[0.0, -0.1, 0.2]), r"drop -0.1 is outside \[0, 1\); the nearest is 0"),
    (dict(drop=[0.0, 0.1]), "drop has 2 numbers for 3 blocks; give 3, or one for all"),
])
def test_shares_that_cannot_be_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        tiny(**options)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="5 heads do not divide a width of 16; the nearest number is 4"):
        DeiT(16, 1, 5)
