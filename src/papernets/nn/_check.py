"""Refusals shared by the backbones."""


def widths_of(given, count: int, where: str) -> tuple[int, ...]:
    """``given`` as a tuple of ``count`` positive widths, or ``ValueError`` naming the first that is wrong."""
    widths = tuple(int(width) for width in given)
    if len(widths) != count:
        raise ValueError(f"{where} takes {count} widths, got {len(widths)}")
    for index, width in enumerate(widths):
        if width < 1:
            raise ValueError(f"{where}: width {index} is {width}; the smallest is 1")
    return widths
