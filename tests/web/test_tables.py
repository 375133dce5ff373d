import pytest

from adserve.web.tables import cell


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=1+1", "'=1+1"),
        (" =1+1", "' =1+1"),
        ("\n=1+1", "'\n'=1+1"),
        ("\t", "'\t"),
        ("x;=1+1", "x;'=1+1"),  # two cells, where `;` separates them
        ("x;y\t@a\n +1", "x;y\t'@a\n' +1"),
        ("web", "web"),
        ("a-b; c=1", "a-b; c=1"),
    ],
)
def test_no_cell_is_a_formula_whatever_separates_cells(text: str, shown: str) -> None:
    assert cell(text) == shown
