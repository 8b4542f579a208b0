"""Removing filters. The strong oracle: a filter that gives exactly 0 can go, and the outputs stay what they were.

The networks are the shapes on which structural pruning is known to break elsewhere.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from papernets.nn import GOOGLENET_WIDTHS, VGG, ConvNet, GoogLeNet, ResNetCIFAR, ResNetImageNet
from papernets.nn.surgery import keep_filters

pytestmark = pytest.mark.usefixtures("one_thread")


def keep(*indices):
    return torch.tensor(indices)


def conv(before, after, kernel=3, **options):
    return nn.Conv2d(before, after, kernel, padding=kernel // 2, **options)


class Net(nn.Module):
    """Layers by name, and a forward pass over them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.path = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.path(self, x)


def prepared(build, pixels=(11, 13), batch=3):
    """A network in evaluation mode with norms that do something, and an input; in float64, so that 1e-6 is strict."""
    torch.manual_seed(0)
    model = build().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model, torch.randn(batch, 3, *pixels, dtype=torch.float64)


@torch.no_grad()
def silence(model, kept, norms):
    """Make every filter that is to go, and what its batch norm makes of it, exactly 0."""
    for name, indices in kept.items():
        for layer in (name, norms.get(name)):
            if layer is None:
                continue
            module = model.get_submodule(layer)
            gone = sorted(set(range(len(module.weight))) - set(indices.tolist()))
            module.weight[gone] = 0
            if module.bias is not None:
                module.bias[gone] = 0


def assert_dead_filters_do_not_matter(model, x, kept, norms=None):
    silence(model, kept, norms or {})
    with torch.no_grad():
        before = model(x)
    copy = keep_filters(model, kept, x)
    with torch.no_grad():
        torch.testing.assert_close(copy(x), before, atol=1e-6, rtol=0)
    assert before.abs().max() > 1e-3  # zeros would agree with anything
    for name, indices in kept.items():
        narrow = copy.get_submodule(name)
        assert narrow.out_channels == len(narrow.weight) == len(indices), name
    return copy


# name: build, kept filters, and the norm behind a convolution where there is one
def chain():
    return Net(lambda m, x: m.head(F.relu(m.norm(m.b(F.relu(m.a(x))))).mean((2, 3))),
               a=conv(3, 7), b=conv(7, 5, bias=False), norm=nn.BatchNorm2d(5), head=nn.Linear(5, 11))


def residual():
    def forward(m, x):
        x = F.relu(m.norm1(m.stem(x)))
        x = F.relu(x + m.norm2(m.b(F.relu(m.a(x)))))
        return m.head((x + m.c(x)).mean((2, 3)))
    return Net(forward, stem=conv(3, 7), norm1=nn.BatchNorm2d(7), a=conv(7, 5), b=conv(5, 7), norm2=nn.BatchNorm2d(7),
               c=conv(7, 7, 1), head=nn.Linear(7, 3))


def concatenation():
    def forward(m, x):
        x = torch.cat([m.a(x), m.b(x), m.c(x)], 1)
        return m.head(F.relu(m.d(F.relu(m.norm(x)))).mean((2, 3)))
    return Net(forward, a=conv(3, 7), b=conv(3, 5, 1), c=conv(3, 3, 5), norm=nn.BatchNorm2d(15), d=conv(15, 11),
               head=nn.Linear(11, 3))


def dense():
    """Concatenation of concatenations, and one part read again later."""
    def forward(m, x):
        one = F.relu(m.a(x))
        two = torch.cat([one, F.relu(m.b(one))], 1)
        three = torch.cat([F.relu(m.c(two)), two], 1)
        return m.head(three.mean((2, 3)))
    return Net(forward, a=conv(3, 7), b=conv(7, 5), c=conv(12, 3), head=nn.Linear(3 + 12, 5))


def concatenation_with_the_input():
    return Net(lambda m, x: m.head(m.b(torch.cat([x, F.relu(m.a(x)), x], 1)).mean((2, 3))),
               a=conv(3, 7), b=conv(3 + 7 + 3, 5), head=nn.Linear(5, 3))


def depthwise():
    def forward(m, x):
        x = F.relu(m.norm1(m.deep(F.relu(m.a(x)))))
        return m.head(F.relu(m.b(x)).mean((2, 3)))
    return Net(forward, a=conv(3, 7), deep=conv(7, 7, groups=7, bias=False), norm1=nn.BatchNorm2d(7), b=conv(7, 5, 1),
               head=nn.Linear(5, 3))


def inverted_residual():
    def forward(m, x):
        x = m.stem(x)
        x = x + m.project(F.relu6(m.deep(F.relu6(m.expand(x)))))
        return m.head(x.mean((2, 3)))
    return Net(forward, stem=conv(3, 5), expand=conv(5, 11, 1), deep=conv(11, 11, groups=11, bias=False),
               project=conv(11, 5, 1), head=nn.Linear(5, 3))


def flatten(how):
    def forward(m, x):
        x = F.max_pool2d(F.relu(m.b(F.relu(m.a(x)))), 2)  # (B, 5, 5, 6)
        x = {"flatten": lambda: x.flatten(1), "reshape": lambda: x.reshape(len(x), -1),
             "view": lambda: x.view(x.size(0), -1)}[how]()
        return m.second(F.relu(m.first(x)))
    return Net(forward, a=conv(3, 7), b=conv(7, 5), first=nn.Linear(150, 13), second=nn.Linear(13, 3))


def one_channel():
    """A single channel, flattened: every pixel is a feature of its own."""
    return Net(lambda m, x: m.head(m.b(F.relu(m.a(x))).flatten(1)), a=conv(3, 7), b=conv(7, 1), head=nn.Linear(143, 5))


def spatial_mask():
    """A one-channel mask, spread over all channels by multiplication: the mask has no filter to lose."""
    def forward(m, x):
        x = F.relu(m.a(x))
        return m.head((x * torch.sigmoid(m.mask(x))).mean((2, 3)))
    return Net(forward, a=conv(3, 7), mask=conv(7, 1), head=nn.Linear(7, 5))


def squeeze_and_excite():
    def forward(m, x):
        x = F.relu(m.a(x))
        gate = torch.sigmoid(m.up(F.relu(m.down(x.mean((2, 3), keepdim=True)))))
        return m.head((x * gate).mean((2, 3)))
    return Net(forward, a=conv(3, 7), down=conv(7, 3, 1), up=conv(3, 7, 1), head=nn.Linear(7, 5))


def shared_input():
    """One tensor read by two branches that meet again."""
    def forward(m, x):
        x = F.relu(m.norm(m.a(x)))
        return m.head(torch.cat([m.b(x), m.c(x)], 1).mean((2, 3)))
    return Net(forward, a=conv(3, 7), norm=nn.BatchNorm2d(7), b=conv(7, 5), c=conv(7, 3, 1), head=nn.Linear(8, 5))


def two_heads_added():
    def forward(m, x):
        x = F.relu(m.a(x))
        return m.left(m.b(x).flatten(1)) + m.right(x.mean((2, 3)))
    return Net(forward, a=conv(3, 7), b=conv(7, 2), left=nn.Linear(2 * 143, 5), right=nn.Linear(7, 5))


def run_twice():
    def forward(m, x):
        return m.head(F.relu(m.again(F.relu(m.again(m.a(x))))).mean((2, 3)))
    return Net(forward, a=conv(3, 7), again=conv(7, 7), head=nn.Linear(7, 5))


def cut_in_two():
    def forward(m, x):
        left, right = m.halves(x).chunk(2, 1)
        return m.head((left * right).mean((2, 3)))
    return Net(forward, halves=conv(3, 10), head=nn.Linear(5, 3))


SEVEN, FIVE = keep(1, 3, 6), keep(0, 4)
CASES = {
    "chain, first": (chain, {"a": SEVEN}, {}),
    "chain, both": (chain, {"a": SEVEN, "b": FIVE}, {"b": "norm"}),
    "chain, one filter left": (chain, {"a": keep(6), "b": keep(0)}, {"b": "norm"}),
    "chain, nothing goes": (chain, {"a": torch.arange(7)}, {}),
    "residual, inside": (residual, {"a": FIVE}, {}),
    "residual, the sum": (residual, {"stem": SEVEN, "b": SEVEN, "c": SEVEN}, {"stem": "norm1", "b": "norm2"}),
    "residual, all": (residual, {"stem": SEVEN, "b": SEVEN, "c": SEVEN, "a": FIVE}, {"stem": "norm1", "b": "norm2"}),
    "concatenation, last": (concatenation, {"d": keep(2, 3, 5, 7)}, {}),
    "dense, first": (dense, {"a": SEVEN}, {}),
    "dense, all": (dense, {"a": SEVEN, "b": FIVE, "c": keep(1)}, {}),
    "concatenation with the input": (concatenation_with_the_input, {"a": SEVEN}, {}),
    "depthwise": (depthwise, {"a": SEVEN}, {}),
    "depthwise and next": (depthwise, {"a": SEVEN, "b": FIVE}, {}),
    "depthwise, one channel left": (depthwise, {"a": keep(5)}, {}),
    "depthwise named as well": (depthwise, {"a": keep(0, 2, 3, 6), "deep": keep(0, 2, 3, 6)}, {"deep": "norm1"}),
    "inverted residual, expansion": (inverted_residual, {"expand": keep(0, 2, 3, 7, 10)}, {}),
    "inverted residual, all": (inverted_residual, {"expand": keep(2, 3), "stem": FIVE, "project": FIVE}, {}),
    "flatten": (lambda: flatten("flatten"), {"a": SEVEN, "b": FIVE}, {}),
    "flatten by reshape": (lambda: flatten("reshape"), {"b": FIVE}, {}),
    "flatten by view": (lambda: flatten("view"), {"b": keep(3)}, {}),
    "one channel, before it": (one_channel, {"a": SEVEN}, {}),
    "one channel, itself": (one_channel, {"a": SEVEN, "b": keep(0)}, {}),
    "spatial mask": (spatial_mask, {"a": SEVEN}, {}),
    "squeeze and excite": (squeeze_and_excite, {"a": SEVEN, "up": SEVEN, "down": keep(2)}, {}),
    "shared input": (shared_input, {"a": SEVEN}, {"a": "norm"}),
    "shared input, branches": (shared_input, {"a": SEVEN, "b": FIVE, "c": keep(2)}, {"a": "norm"}),
    "two heads": (two_heads_added, {"a": SEVEN, "b": keep(1)}, {}),
    "cut in two, the same of each half": (cut_in_two, {"halves": keep(0, 2, 5, 7)}, {}),
    "run twice": (run_twice, {"a": SEVEN, "again": SEVEN}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_dead_filters_do_not_matter(case):
    build, kept, norms = CASES[case]
    model, x = prepared(build)
    if case.startswith("depthwise"):  # what follows a dead channel must be dead too
        silence(model, {"deep": kept["a"]}, {"deep": "norm1"})
    assert_dead_filters_do_not_matter(model, x, kept, norms)


def test_concatenated_parts_shift_the_norm_behind_them():
    """Positions 1, 3, 6 of the first part, 0, 4 of the second and 2 of the third, of 15."""
    model, x = prepared(concatenation)
    kept = {"a": SEVEN, "b": FIVE, "c": keep(2)}
    places = [1, 3, 6, 7 + 0, 7 + 4, 12 + 2]
    silence(model, {"norm": torch.tensor(places)}, {})
    copy = assert_dead_filters_do_not_matter(model, x, kept)
    assert torch.equal(copy.norm.running_mean, model.norm.running_mean[places])
    assert torch.equal(copy.d.weight, model.d.weight[:, places])


def test_live_filters_are_cut_out_unchanged():
    """Without dead filters the outputs differ, but every weight left is the original's, in the original's order."""
    model, x = prepared(chain)
    copy = keep_filters(model, {"a": SEVEN, "b": FIVE}, x)
    assert torch.equal(copy.a.weight, model.a.weight[SEVEN])
    assert torch.equal(copy.a.bias, model.a.bias[SEVEN])
    assert torch.equal(copy.b.weight, model.b.weight[FIVE][:, SEVEN])
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(copy.norm, name), getattr(model.norm, name)[FIVE])
    assert torch.equal(copy.head.weight, model.head.weight[:, FIVE])
    assert torch.equal(copy.head.bias, model.head.bias)


def test_flattened_features_go_by_whole_channels():
    model, x = prepared(lambda: flatten("flatten"))
    copy = keep_filters(model, {"b": FIVE}, x)
    expected = model.first.weight.view(13, 5, 30)[:, FIVE].flatten(1)
    assert torch.equal(copy.first.weight, expected)


def test_the_order_of_a_list_does_not_matter():
    model, x = prepared(chain)
    first, second = (keep_filters(model, {"a": indices}, x) for indices in (keep(1, 3, 6), keep(6, 1, 3)))
    assert torch.equal(first.a.weight, second.a.weight)


def test_the_order_of_the_names_does_not_matter():
    model, x = prepared(residual)
    kept = {"stem": SEVEN, "b": SEVEN, "c": SEVEN, "a": FIVE}
    first, second = (keep_filters(model, order, x) for order in (kept, dict(reversed(kept.items()))))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


# the backbones
def behind(name):
    """The norm behind a convolution of a Sequential."""
    parent, index = name.rsplit(".", 1)
    return f"{parent}.{int(index) + 1}"


def convolutions(model, *starts):
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d) and name.startswith(starts)]


def test_convnet():
    model, x = prepared(lambda: ConvNet((7, 5, 11), 3), (9, 13))
    kept = {"features.0": SEVEN, "features.4": FIVE, "features.8": keep(0, 5, 10)}
    assert_dead_filters_do_not_matter(model, x, kept, {name: behind(name) for name in kept})


def test_vgg():
    model, x = prepared(lambda: VGG((3, 5, 7, 5, 3, 5, 7, 5, 3, 5, 7, 5, 3), 3), (32, 32))
    kept = {name: keep(0, 2) for name in convolutions(model, "features")}
    assert len(kept) == 13
    assert_dead_filters_do_not_matter(model, x, kept, {name: behind(name) for name in kept})


def test_googlenet():
    widths = {unit: tuple(3 + (row + i) % 5 for i in range(7)) for row, unit in enumerate(GOOGLENET_WIDTHS)}
    model, x = prepared(lambda: GoogLeNet(widths, 3), (32, 32), batch=2)
    kept = {name: keep(0, 2) for name in convolutions(model, "a3", "c4", "b5")}
    assert len(kept) == 21
    assert_dead_filters_do_not_matter(model, x, kept, {name: behind(name) for name in kept})


def test_resnet_cifar_inside_its_blocks():
    model, x = prepared(lambda: ResNetCIFAR(14, stages=(5, 7, 11), classes=3), (32, 32))
    kept = {f"blocks.{index}.conv1": keep(0, 3, 4) for index in range(6)}
    assert_dead_filters_do_not_matter(model, x, kept, {name: name.replace("conv", "bn") for name in kept})


def test_resnet50_inside_its_blocks_and_a_stage():
    model, x = prepared(lambda: ResNetImageNet((3,) * 16, (5,) * 16, (7, 11, 13, 17), 5, 3), (65, 65), batch=2)
    kept = {f"blocks.{index}.conv{layer}": keep(0, 2) for index in range(16) for layer in (1, 2)}
    kept |= {f"blocks.{index}.conv3": keep(0, 2, 9) for index in (3, 4, 5, 6)}
    norms = {name: name.replace("conv", "bn") for name in kept}
    kept["blocks.3.shortcut.0"], norms["blocks.3.shortcut.0"] = keep(0, 2, 9), "blocks.3.shortcut.1"
    assert_dead_filters_do_not_matter(model, x, kept, norms)


# what must stay
def snapshot(model):
    return ({name: value.clone() for name, value in model.state_dict().items()},
            {name: module.training for name, module in model.named_modules()},
            {name: p.requires_grad for name, p in model.named_parameters()})


def same(first, second):
    return (first[0].keys() == second[0].keys() and all(torch.equal(first[0][k], second[0][k]) for k in first[0])
            and first[1:] == second[1:])


def half_frozen():
    model, x = prepared(chain)
    model.train()
    model.norm.eval()
    model.a.weight.requires_grad_(False)
    model.head.requires_grad_(False)
    return model, x


def test_the_original_is_unchanged():
    model, x = half_frozen()
    before = snapshot(model)
    keep_filters(model, {"a": SEVEN, "b": FIVE}, x)
    assert same(snapshot(model), before)
    assert all(p.grad is None for p in model.parameters())


def test_the_original_is_unchanged_by_a_refusal():
    model, x = half_frozen()
    before = snapshot(model)
    for kept in ({"a": keep(9)}, {"head": SEVEN}):
        with pytest.raises(ValueError, match=r"kept filters|no convolution"):
            keep_filters(model, kept, x)
        assert same(snapshot(model), before)


def test_the_copy_shares_nothing_and_keeps_its_flags():
    model, x = half_frozen()
    before = snapshot(model)
    copy = keep_filters(model, {"a": SEVEN}, x)
    assert snapshot(copy)[1:] == before[1:]
    with torch.no_grad():
        for value in copy.state_dict().values():
            value.zero_()
    assert same(snapshot(model), before)


def test_the_copy_can_be_trained():
    model, x = prepared(residual)
    copy = keep_filters(model, {"stem": SEVEN, "b": SEVEN, "c": SEVEN}, x).train()
    copy(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in copy.parameters())


def test_works_where_gradients_are_off():
    model, x = prepared(chain)
    with torch.no_grad():
        copy = keep_filters(model, {"a": SEVEN}, x)
    assert copy.a.out_channels == 3


# refusals
@pytest.mark.parametrize("wrong", [[], [7], [-1, 2], [0, 1, 1]])
def test_a_wrong_list_is_refused(wrong):
    model, x = prepared(chain)
    with pytest.raises(ValueError, match="a: the kept filters must be distinct and from 0 to 6, and at least one"):
        keep_filters(model, {"a": torch.tensor(wrong, dtype=torch.int64)}, x)


@pytest.mark.parametrize("name", ["head", "norm", "absent", ""])
def test_a_name_that_is_no_convolution_is_refused(name):
    model, x = prepared(chain)
    with pytest.raises(ValueError, match=f"'{name}' is no convolution of this network"):
        keep_filters(model, {name: keep(0)}, x)


def test_disagreeing_lists_are_refused():
    model, x = prepared(residual)
    with pytest.raises(ValueError, match=r"stem and [bc] are added together and .* they keep 3 and 2"):
        keep_filters(model, {"stem": SEVEN, "b": FIVE, "c": FIVE}, x)
    with pytest.raises(ValueError, match="must keep the same filters; they keep 3 and 3"):  # as many, but others
        keep_filters(model, {"stem": SEVEN, "b": SEVEN, "c": keep(1, 3, 5)}, x)


def test_an_incomplete_sum_is_refused():
    model, x = prepared(residual)
    with pytest.raises(ValueError, match=r"c and \w+ are added together and .* they keep 3 and 7"):
        keep_filters(model, {"c": SEVEN}, x)


def grouped_after():
    return Net(lambda m, x: m.head(m.grouped(F.relu(m.a(x))).mean((2, 3))),
               a=conv(3, 6), grouped=conv(6, 6, groups=2), head=nn.Linear(6, 5))


def multiplied_depthwise():
    return Net(lambda m, x: m.head(m.deep(F.relu(m.a(x))).mean((2, 3))),
               a=conv(3, 5), deep=conv(5, 10, groups=5), head=nn.Linear(10, 3))


@pytest.mark.parametrize("kept", [{"grouped": keep(0, 1, 3, 4)}, {"a": keep(0, 1, 2, 3)}, {"a": keep(0, 1, 3, 4)},
                                  {"a": keep(0, 3), "grouped": keep(0, 3)}], ids=str)
def test_grouped_convolutions_are_refused(kept):
    model, x = prepared(grouped_after)
    with pytest.raises(ValueError, match="grouped has 2 groups"):
        keep_filters(model, kept, x)


@pytest.mark.parametrize("name", ["a", "deep"])
def test_a_depthwise_convolution_with_several_filters_a_channel_is_refused(name):
    model, x = prepared(multiplied_depthwise)
    with pytest.raises(ValueError, match="deep has 5 groups"):
        keep_filters(model, {name: keep(0, 2, 4)}, x)


def test_a_depthwise_convolution_alone_is_refused():
    model, x = prepared(depthwise)
    with pytest.raises(ValueError, match="deep and a"):
        keep_filters(model, {"deep": SEVEN}, x)


def outputs_channels():
    return Net(lambda m, x: m.b(F.relu(m.a(x))), a=conv(3, 7), b=conv(7, 5))


def outputs_features(kind):
    def forward(m, x):
        features = F.relu(m.a(x))
        result = m.head(features.mean((2, 3)))
        return {"tuple": (result, features), "dict": {"result": result, "features": features},
                "nested": (result, [features])}[kind]
    return Net(forward, a=conv(3, 7), head=nn.Linear(7, 5))


@pytest.mark.parametrize(("build", "name"), [
    (outputs_channels, "b"), (lambda: Net(lambda m, x: m.b(x).mean((2, 3)), b=conv(3, 5)), "b"),
    *((lambda kind=kind: outputs_features(kind), "a") for kind in ("tuple", "dict", "nested")),
], ids=["map", "mean", "tuple", "dict", "nested"])
def test_a_network_that_would_lose_outputs_is_refused(build, name):
    model, x = prepared(build)
    with pytest.raises(ValueError, match="own outputs would lose channels; leave its last convolution out"):
        keep_filters(model, {name: keep(0, 2)}, x)


def test_the_other_layers_of_that_network_may_be_narrowed():
    model, x = prepared(outputs_channels)
    assert_dead_filters_do_not_matter(model, x, {"a": SEVEN})


def added_to_the_input():
    return Net(lambda m, x: m.head((x + m.added(x)).mean((2, 3))), added=conv(3, 3), head=nn.Linear(3, 5))


def resnet_with_padding():
    return ResNetCIFAR(8, stages=(5, 7, 11))


@pytest.mark.parametrize(("build", "kept", "pixels"), [
    (added_to_the_input, {"added": keep(0, 2)}, (11, 13)),
    (cut_in_two, {"halves": keep(0, 2, 3)}, (11, 13)),
    (cut_in_two, {"halves": keep(0, 2, 3, 8)}, (11, 13)),  # an even number, but 3 of one half and 1 of the other
    (resnet_with_padding, {name: keep(1, 2, 4) for name in ("conv1", "blocks.0.conv2", "blocks.1.conv2",
                                                            "blocks.2.conv2")}, (32, 32)),
], ids=["added to the input", "cut in two", "cut unevenly", "padding shortcut"])
def test_what_cannot_be_narrowed_is_refused_in_our_words(build, kept, pixels):
    """Widths that something else fixes: the image, a cut into equal parts, a number of zeros."""
    model, x = prepared(build, pixels)
    before = snapshot(model)
    with pytest.raises(ValueError, match=next(iter(kept))):
        keep_filters(model, kept, x)
    assert same(snapshot(model), before)
