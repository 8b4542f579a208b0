"""Full recipes on real data sets, and the data sets."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from papernets.cli.console import Json, at_home, say
from papernets.tools.quick_imports import lightning_fabric


def train(slug: Annotated[str, typer.Argument(help="Paper, by number or slug.")],
          config: Annotated[str | None, typer.Option(help="Recipe, such as vgg16-cifar10.")] = None,
          folder: Annotated[Path | None, typer.Option(callback=at_home, help="Checkpoint, log and best network go here; "
                                                      "without it, to runs/PAPER/CONFIG, and CONFIG-seedN for seed N.")]
          = None,
          data: Annotated[Path | None, typer.Option(callback=at_home, help="Archive or folder of the data set.")] = None,
          epochs: Annotated[int | None, typer.Option(min=1, help="Stop earlier than the recipe.")] = None,
          seed: Annotated[int, typer.Option(min=0)] = 0,
          accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu …")] = "auto",
          devices: Annotated[str, typer.Option(help="How many, or auto.")] = "auto",
          nodes: Annotated[int, typer.Option(min=1, help="Machines, when started by torchrun on each.")] = 1,
          strategy: Annotated[str, typer.Option(help="auto, ddp, ddp_find_unused_parameters_true …")] = "auto",
          precision: Annotated[str, typer.Option(help="32-true, 16-mixed, bf16-mixed …")] = "32-true") -> None:
    """Run a paper's full recipe on the real data set; started again, it goes on where it stopped."""
    paper, make = _recipe(slug, config)
    from papernets.training import RUNS, run_recipe
    folder = folder or RUNS / paper / (config if seed == 0 else f"{config}-seed{seed}")
    fabric = _fabric(accelerator, devices, num_nodes=nodes, strategy=strategy, precision=precision)
    recipe = make()

    def report(epoch: int, total: int, history) -> None:
        if fabric.is_global_zero:
            text = f"epoch {epoch + 1}/{total}  loss {history.loss[-1]:.4f}"
            if history.scores:
                text += f"  {recipe.score} {100 * history.scores[-1]:.2f} %  best {100 * max(history.scores):.2f} %"
            say(text)

    history = run_recipe(recipe, folder, fabric=fabric, seed=seed, data=data, epochs=epochs, report=report)
    say(f"best {recipe.score} {100 * max(history.scores):.2f} %; the network is {folder / 'best.pt'}")


def _recipe(name: str, config: str | None) -> tuple[str, Callable]:
    """The slug of a paper, and what makes its recipe."""
    from papernets.cards import card
    paper = card(name)
    if not (paper.folder / "recipes.py").is_file():
        raise ValueError(f"{paper.slug} is planned and has no recipe yet")
    recipes = importlib.import_module(f"papernets.papers.{paper.module}.recipes").RECIPES
    if config is None or config not in recipes:
        given = "give a recipe with --config" if config is None else f"{paper.slug} has no recipe {config!r}"
        raise ValueError(f"{given}: {', '.join(recipes)}")
    return paper.slug, recipes[config]


def _fabric(accelerator: str, devices: str, **options):
    """Lightning's Fabric, launched. ``ValueError`` if this machine cannot train so."""
    try:
        devices = devices if devices == "auto" else int(devices)
        fabric = lightning_fabric().Fabric(accelerator=accelerator, devices=devices, **options)
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"cannot train on accelerator {accelerator} with devices {devices}: {error}") from None
    return fabric


def fetch(name: Annotated[str, typer.Argument(help="Name of the data set.")]) -> None:
    """Download a data set or trained weights into the cache folder, check the checksum, and unpack what is to be unpacked."""
    from papernets import data
    get = data.fetch_unpacked if name in data.SOURCES and data.SOURCES[name].unpacks else data.fetch
    say(str(get(name, progress=sys.stderr.isatty())))


def list_(json_: Json = False) -> None:
    """Data sets that can be fetched, and which are here."""
    from papernets.data import SOURCES, cache_folder
    rows = [{"name": name, "megabytes": source.megabytes, "here": (cache_folder() / source.file).exists()}
            for name, source in SOURCES.items()]
    if json_:
        print(json.dumps(rows))
        return
    for row in rows:
        say(f"{row['name']:<16} {row['megabytes']:>4} MB  {'here' if row['here'] else ''}")
