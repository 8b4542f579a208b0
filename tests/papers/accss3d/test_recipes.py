"""AccSS3D: the recipes."""

import re

import numpy as np
import pytest

from papernets.cards import card
from papernets.papers.accss3d.networks import UNet
from papernets.papers.accss3d.recipes import RECIPES
from papernets.training import run_recipe

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.xdist_group("numba")]


def write_scans(folder):
    """Three scans of a corner with two labels, in the published form."""
    mesh = np.dtype([(name, "<f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue", "alpha")])
    rng = np.random.default_rng(0)
    for part, number in (("train", 0), ("train", 1), ("val", 2)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        vertices = np.zeros(400, mesh)
        for axis in "xyz":
            vertices[axis] = rng.uniform(0, 0.4, 400)
        vertices["z"][:200] = 0
        labelled = np.zeros(400, [*mesh.descr, ("label", "<u2")])
        labelled["label"] = np.where(vertices["z"] == 0, 2, 1)
        for suffix, values in (("", vertices), (".labels", labelled)):
            names = {"f": "float", "u": "uchar"}
            head = ["ply", "format binary_little_endian 1.0", "element vertex 400"]
            head += [f"property {'ushort' if n == 'label' else names[values.dtype[n].kind]} {n}" for n in values.dtype.names]
            path = folder / part / f"scene000{number}_00_vh_clean_2{suffix}.ply"
            path.write_bytes("\n".join([*head, "end_header\n"]).encode() + values.tobytes())


def test_the_recipe_runs_on_scans(tmp_path):
    write_scans(tmp_path / "scans")
    recipe = RECIPES["unet-scannet"]()
    assert len(recipe.build().head.bias) == 20 and recipe.epochs == 200
    small = type(recipe)(**{**recipe.__dict__, "build": lambda: UNet((4, 6), 3, 20), "batch": 2})
    history = run_recipe(small, tmp_path / "run", data=tmp_path / "scans", epochs=2)
    assert len(history.loss) == 2 and history.loss[1] < history.loss[0] and (tmp_path / "run" / "best.pt").exists()


def test_the_recipe_says_what_data_it_needs(tmp_path):
    with pytest.raises(ValueError, match=r"scannet cannot be fetched.*give its folder with --data"):
        run_recipe(RECIPES["unet-scannet"](), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_full_claim_has_a_recipe():
    for claim in card("accss3d").claims:
        if claim.kind == "full":
            assert re.fullmatch(r"papernets train accss3d --config (\S+)", claim.recipe)[1] in RECIPES
