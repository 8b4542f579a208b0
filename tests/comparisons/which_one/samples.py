"""What several tests of the comparison of eight methods look at."""


def claim(name, low, high):
    return {"id": name, "kind": "miniature", "ours": (low + high) / 2, "interval": [low, high], "seeds": 3, "verdict": "?"}
