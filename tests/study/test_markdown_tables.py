import pytest

from fedrobust.study import markdown_table, marked_sections


def test_a_table_by_hand():
    assert markdown_table(["rule", "rate"], [["mean", "1"], ("krum", "2")]) == (
        "| rule | rate |\n|---|---|\n| mean | 1 |\n| krum | 2 |"
    )


def test_a_row_that_does_not_fit():
    with pytest.raises(ValueError, match=r"a row must have 2 cells, got 1: \['mean'\]"):
        markdown_table(["rule", "rate"], [["mean"]])


def test_a_section_is_replaced_and_the_others_are_kept():
    """Measured on one device after the other, the page has both; measured again, the newer."""
    page = ""
    for device, text in (("cpu", "slow"), ("cuda", "fast"), ("cpu", "slower")):
        sections = marked_sections(page, ("cpu", "cuda"), {device: text})
        page = f"# Page\n\n{sections['cpu']}\n\n{sections['cuda']}\n"
    assert page == "# Page\n\n<!-- cpu -->\nslower\n<!-- end cpu -->\n\n<!-- cuda -->\nfast\n<!-- end cuda -->\n"


def test_what_was_never_measured_says_so():
    assert "Not measured." in marked_sections("", ("cpu", "cuda"), {"cpu": "x"})["cuda"]
