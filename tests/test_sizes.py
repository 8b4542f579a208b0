"""How long a file may grow: one file has one idea, and is read from its beginning to its end."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"src": 450, "kernels": 450, "tests": 350}  # lines


def too_long(folder: Path, limit: int) -> list[str]:
    """The Python files below ``folder`` of more than ``limit`` lines. A folder without one is an error of the test itself."""
    files = sorted(folder.rglob("*.py"))
    assert files, f"no source in {folder}"
    found = []
    for file in files:
        with file.open(encoding="utf-8") as text:
            lines = sum(1 for _ in text)
        if lines > limit:
            name = file.relative_to(folder.parent).as_posix()
            found.append(f"{name} has {lines} lines; at most {limit}: give an idea of it a file of its own")
    return found


@pytest.mark.parametrize(("room", "limit"), LIMITS.items())
def test_no_file_is_too_long(room, limit):
    assert too_long(ROOT / room, limit) == []


# --- the checker itself: a planted long file is reported, and what is allowed is not ----------------------------------


@pytest.mark.parametrize(("lines", "last", "long"), [(7, "", False), (6, "x", False), (8, "", True), (7, "x", True)])
@pytest.mark.parametrize("name", ["planted.py", "deep/er/planted.py", "deep/__init__.py"])
def test_a_planted_long_file_is_reported(lines, last, long, name, tmp_path):
    """With and without an end of its last line."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "short.py").write_text("x\n")
    (tmp_path / "room" / "table.csv").write_text("x\n" * 99)
    planted = tmp_path / "room" / name
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text("é\n" * lines + last, encoding="utf-8")
    says = f"room/{name} has 8 lines; at most 7: give an idea of it a file of its own"
    assert too_long(tmp_path / "room", 7) == ([says] if long else [])


def test_an_empty_room_is_an_error(tmp_path):
    with pytest.raises(AssertionError, match="no source in"):
        too_long(tmp_path, 7)
