from string import ascii_uppercase

import pytest

from distill_tasks.core.errors import InputError
from distill_tasks.llm.codes import LETTERS, choose_codes


def test_the_first_codes_are_capital_letters():
    assert choose_codes(3) == ("A", "B", "C")
    assert choose_codes(26, lambda _: True) == tuple(ascii_uppercase)


def test_what_is_several_tokens_is_no_code():
    codes = choose_codes(26, lambda code: code not in ("B", "AA"))
    assert codes == (*ascii_uppercase.replace("B", ""), "AB")


def test_numbers_come_last():
    assert choose_codes(12, str.isdigit) == tuple(str(number) for number in range(12))


def test_without_a_tokenizer_there_are_letters_and_then_numbers_of_as_many_digits():
    assert choose_codes(52) == tuple(LETTERS)
    assert choose_codes(53) == tuple(str(number) for number in range(10, 63))
    assert choose_codes(90)[-1] == "99"
    assert (choose_codes(91)[0], choose_codes(900)[-1]) == ("100", "999")
    with pytest.raises(InputError, match="at most 900 classes apart by their codes; the data has"):
        choose_codes(901)


def test_a_tokenizer_with_too_few_single_tokens_is_refused_in_one_line():
    with pytest.raises(
        InputError, match=r"3 classes need .* the model's tokenizer there are 2"
    ) as caught:
        choose_codes(3, {"A", "B"}.__contains__)
    assert "\n" not in str(caught.value)
