"""The report before and after: numbers by hand, text and table, layers with a form of their own, the refusals."""

import pytest
import torch
from torch import nn

from papernets.measure import Cost, Report, cost, report


class Packed(nn.Module):
    """Keeps 7 numbers of 16 bits and 5 of 2, and a bias that is a parameter."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))

    @property
    def stored(self):
        return 7, 7 * 16 + 5 * 2

    def forward(self, x):
        return x.flatten(1)[:, :3] + self.bias

    def macs_of(self, x, y, convention):
        return 7 * len(x)


X = torch.zeros(1, 3, 5, 7)


def test_by_hand():
    conv = nn.Conv2d(3, 2, 3)
    with torch.no_grad():
        conv.weight[1] = 0
        conv.weight[0] = 1
        conv.bias.fill_(1)
    found = cost(conv, X, timed=False)
    assert found == Cost(parameters=56, nonzero=29, macs=2 * 27 * 15, bytes=224)


def test_a_layer_with_a_form_of_its_own():
    found = cost(Packed(), X, timed=False)
    assert (found.parameters, found.nonzero, found.macs) == (10, 7, 7)
    assert found.bytes == 28  # 3·32 bits of bias and 122 of packed weights are 27.25 bytes


def test_time_is_measured_in_evaluation_mode_and_the_mode_restored():
    model = nn.Sequential(nn.Dropout(), nn.Flatten(), nn.Linear(105, 2))
    model[0].eval()
    seen = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(module.training or model.training))
    assert cost(model, X).seconds > 0
    assert seen and not any(seen)
    assert model.training and not model[0].training


REPORT = Report(Cost(1_234_567, 1_234_567, 20_000_000, 4_938_268, 0.0123), Cost(308_641, 300_000, 5_500, 1_234_564, 0.00456))


def test_as_text():
    lines = [line.split("  ") for line in str(REPORT).replace("\u202f", " ").splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells == [["before", "after", "left"], ["parameters", "1 234 567", "308 641", "25.0 %"],
                     ["not zero", "1 234 567", "300 000", "24.3 %"], ["MACs", "20 M", "0.0055 M", "0.0 %"],
                     ["stored", "4 938 kB", "1 235 kB", "25.0 %"], ["time", "12.3 ms", "4.56 ms", "37.1 %"]]
    assert len({len(line) for line in str(REPORT).splitlines()}) == 1


def test_as_a_table():
    table = REPORT._repr_html_()
    assert table.count("<tr>") == 6 and '<td data-label="after">4.56 ms</td><td data-label="left">37.1 %</td>' in table


def test_without_time_there_is_no_such_line():
    untimed = report(nn.Linear(3, 2), nn.Linear(3, 1), torch.zeros(1, 3), timed=False)
    assert [row[0] for row in untimed.rows()] == ["parameters", "not zero", "MACs", "stored"]
    assert untimed.rows()[0] == ("parameters", "8", "4", "50.0 %")


def test_nothing_left_of_nothing():
    assert report(nn.ReLU(), nn.ReLU(), X, timed=False).rows()[0] == ("parameters", "0", "0", "")


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match="threads is 0; the smallest is 1"):
        report(nn.ReLU(), nn.ReLU(), X, threads=0)
