"""AccSS3D: the networks and their counts."""

import pytest
import torch
from papers.accss3d.samples import densified, warmed

from papernets.data import Rooms, room
from papernets.papers.accss3d.networks import UNet

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.xdist_group("numba")]


@pytest.mark.parametrize("options", [{"widths": (3, 5)}, {"widths": (3, 5, 7), "repeats": 2}, {"widths": (3,)}])
def test_the_masked_dense_twin_gives_the_same_outputs(options):
    model = warmed(**options)
    twin = densified(model)
    rows, _ = Rooms([room(5, 16), room(6, 15)])[[0, 1]]
    with torch.no_grad():
        torch.testing.assert_close(twin(rows), model(rows), atol=2e-5, rtol=1e-4)
    loose = UNet(**options, dense=True)
    loose.load_state_dict(twin.state_dict())
    with torch.no_grad():
        assert (loose.eval()(rows) - model(rows)).abs().max() > 1e-2  # without the mask it is another network
