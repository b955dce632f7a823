"""The table of faults in README.md is what the tests show, and has no empty place."""

from faults import CANNOT, ROOT, found, with_table


def test_every_fault_has_a_test_or_a_reason_at_every_place_and_readme_says_so():
    readme = ROOT / "README.md"
    assert readme.read_text() == with_table(readme)


def test_what_is_said_to_be_impossible_is_not_shown_by_a_test():
    assert not set(CANNOT) & set(found())
