"""What several tests of LBC look at."""



HEAD = ("classifier",)


def row(identity, low, high, verdict):
    return {"kind": "miniature", "id": identity, "ours": (low + high) / 2, "interval": [low, high], "seeds": 12,
            "verdict": verdict}
