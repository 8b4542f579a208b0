"""What the tests of surgery share: networks of the shapes on which structural pruning is known to break, and the oracle.

The oracle: a filter that gives exactly 0 can go, and the outputs stay what they were.
"""

import torch
from torch import nn
from torch.nn import functional as F

from papernets.nn.surgery import keep_filters


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


# --- is a network left as it was? ------------------------------------------------------------------------------------


def snapshot(model):
    return ({name: value.clone() for name, value in model.state_dict().items()},
            {name: module.training for name, module in model.named_modules()},
            {name: p.requires_grad for name, p in model.named_parameters()})


def same(first, second):
    return (first[0].keys() == second[0].keys() and all(torch.equal(first[0][k], second[0][k]) for k in first[0])
            and first[1:] == second[1:])


# --- the networks ----------------------------------------------------------------------------------------------------


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

# name: build, kept filters, and the norm behind a convolution where there is one
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
