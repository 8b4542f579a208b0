"""The experiments of the chapter on $name."""

from papernets.data import digits
from papernets.nn import ConvNet
from papernets.papers.$module.method import $config, treat_
from papernets.training import Task, row, single_thread

#: The arms of the comparison: the method, and the strongest simple alternative with the same budget.
ARMS = ("ours", "plain")


def compare(seed: int, *, train: int = 300, epochs: int = 8, lr: float = 0.05) -> list[dict]:
    """All arms for one seed: same first weights, order of the data and number of epochs. ``score``: test accuracy (a share)."""
    task, rows = Task(*digits(train, seed), epochs, seed, lr), []
    with single_thread():
        for arm in ARMS:
            model = task.start(ConvNet, (16, 32), channels=1, pool=(0,))
            if arm == "ours":
                treat_(model, $config())
            task.learn(model)
            rows.append(row(seed, arm, task.accuracy(model)))
    return rows
