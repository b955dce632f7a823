"""The table of faults is what the tests show, and has no empty place."""

from faults import CANNOT, PAGE, found, with_table


def test_every_fault_has_a_test_or_a_reason_at_every_place_and_the_page_says_so():
    assert PAGE.read_text() == with_table()


def test_what_is_said_to_be_impossible_is_not_shown_by_a_test():
    assert not set(CANNOT) & set(found())
