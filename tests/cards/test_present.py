"""Claims in words and as a table: what counts as reproduced, numbers, and units."""

from claim_checks import exact, ledger

from papernets.cards.present import amount, counted, number_text, table, unit_text


def test_what_is_printed_nowhere_is_not_called_reproduced():
    """In the counts, as a line, and in the table; with results that were written before they said where a number stands."""
    claims = ledger(exact("a"), exact("b", stated="derived"), exact("c", stated="derived", ours=107, differs="a reason"))
    for id, value in (("a", 100), ("b", 100), ("c", 107)):
        claims.record(id, value)
    rows = claims.rows()
    old = [{key: value for key, value in row.items() if key != "stated"} for row in rows]
    for found in (counted(rows), counted(old, claims.card)):
        assert (found["reproduced"], found["derived"], found["differs"]) == (1, 1, 1)
    assert [line.split()[-1] for line in claims.text().splitlines()] == ["reproduced", "derived", "differs"]
    assert [" paper " in line for line in claims.text().splitlines()] == [True, False, False]
    for page in (table(rows, claims.card), table(old, claims.card)):
        printed = [cell.split("</td>")[0] for cell in page.split('data-label="paper"')[1:]]
        assert ["not printed" in cell for cell in printed] == [False, True, True]
        assert page.count("pn-derived") == page.count("pn-reproduced") == page.count("pn-differs") == 1


def test_numbers_and_units_as_one_writes_them():
    assert [number_text(value) for value in (0, 1e-17, 16342069.12, 123456789, 99999.5, 0.25, 2.5e-5, "many")] == [
        "0", "0", "16\u202f342\u202f069", "123\u202f456\u202f789", "99999.5", "0.25", "2.5e-05", "many"]
    for value, unit, text in ((1, "layer", "layer"), (2, "layer", "layers"), (0, "layer", "layers"), (3, "class", "classes"),
                              (2, "patch", "patches"), (5, "entry", "entries"), (2, "%", "%"), (2, "ratio", "ratio"),
                              (1.5, "million MAC", "million MACs"), ("more", "layer", "layer"), (4, "", "")):
        assert unit_text(value, unit) == text
    assert [amount(-2, "layer"), amount(1.5, "<b>"), amount("<i>", "layer"), amount(None, "layer"), amount(-2.5e-5, "")] == [
        "\u22122 layers", "1.5 &lt;b&gt;", "&lt;i&gt;", "", "\u22122.5e\u221205"]
