"""``arcforge show``: which rows are drawn, and what is refused."""

from __future__ import annotations

import pytest
import typer

from arcforge.cli.options import parse_rows


def test_numbers_and_ranges_in_the_order_given():
    assert parse_rows("7, 0,3:6", 10, 240) == [7, 0, 3, 4, 5]
    assert parse_rows("9", 10, 240) == [9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10", "row 10 is not in a store of 10 rows"),
        ("8:12", "row 10 is not in a store of 10 rows"),
        ("-1", "'-1' is no row number"),
        ("1;2", "'1;2' is no row number"),
        ("", "'' is no row number"),
        ("4:4", "'4:4' names no row"),
        ("0:9" + "," + ",".join(["0"] * 240), "240 rows"),
    ],
)
def test_other_rows_are_refused(text, message):
    with pytest.raises(typer.BadParameter, match=message):
        parse_rows(text, 10, 240)


def test_a_huge_range_is_refused_before_it_is_built():
    with pytest.raises(typer.BadParameter, match="240 rows"):
        parse_rows("0:999999999999", 10**12, 240)
