"""The calculator: a table of expressions with their exact results."""

import pytest

from llmstages.core import registry

RESULTS = {
    # integers
    "1+1": "2",
    "123+456": "579",
    "  7 - 10 ": "-3",
    "-3*-4": "12",
    "+5": "5",
    "--5": "5",
    "999999999999*999999999999": "999999999998000000000001",
    "12345678901234567890+1": "12345678901234567891",
    "7//2": "3",
    "-7//2": "-4",
    "7%3": "1",
    "-7%3": "2",
    "2*(3+4)": "14",
    "2*3+4": "10",
    "(1+2)*(3-5)/2": "-3",
    "1,234+1": "1235",
    "1,234,567*2": "2469134",
    # decimals and fractions
    "0.1+0.2": "0.3",
    "1.1*1.1": "1.21",
    "9.9-9.11": "0.79",
    "1/4": "0.25",
    "1/8+1/8": "0.25",
    "1/3*3": "1",
    "1/3+1/6": "0.5",
    "2/3": "0.666666666667",
    "1/7": "0.142857142857",
    "100/3": "33.3333333333",
    "1e3": "1000",
    "1.5e-3": "0.0015",
    "2.50*4": "10",
    "0.000001/1000": "0.000000001",
    "7.5%2": "1.5",
    "-0.5": "-0.5",
    ".5+.5": "1",
    "1234567.89 * 2": "2469135.78",
    "9007199254740993 * 1.0": "9007199254740993",
    "0.000012345678 * 1": "0.000012345678",
    "1e10 * 1e10": "100000000000000000000",
    "1_000 * 2": "2000",
    "1 / 7e10": "0.0000000000142857142857",
    # signs that people write
    "3×4": "12",
    "8÷2": "4",
    "5−3": "2",
    "2·3": "6",
    "2^10": "1024",
    "2^3+1": "9",
    # powers
    "2**10": "1024",
    "2**-2": "0.25",
    "(-2)**3": "-8",
    "(1/2)**3": "0.125",
    "0**0": "1",
    "10**60-1": "9" * 60,
    "1**1000000": "1",
    # comparisons
    "9.11>9.9": "False",
    "9.9>9.11": "True",
    "0.1+0.2==0.3": "True",
    "0.1+0.2=0.3": "True",
    "1/3==0.333": "False",
    "2!=2": "False",
    "1<2<3": "True",
    "1<3<2": "False",
    "10**3>=1000": "True",
    "3≤2": "False",
    "-5 < -4": "True",
    # what is not worked out
    "1/0": "error: division by zero",
    "0**-1": "error: division by zero",
    "5%0": "error: division by zero",
    "0.0 // 0": "error: division by zero",
    "1e999-1e999": "error: 1e999 is too large or too small",
    "1e59*1e59": "error: the result has more than 60 digits",
    "1" * 61: "error: expression too long",
    "1j*2": "error: only numbers, + - * / // % ** and comparisons are worked out",
    "[1]*9": "error: only numbers, + - * / // % ** and comparisons are worked out",
    "__import__('os')": "error: only numbers, + - * / // % ** and comparisons are worked out",
    "2**0.5": "error: only whole numbers are worked out as exponents",
    "10**61": "error: the result has more than 60 digits",
    "9**9**9": "error: the result has more than 60 digits",
    "10**60": "error: the result has more than 60 digits",
    "1e400": "error: 1e400 is too large or too small",
    "x+1": "error: only numbers, + - * / // % ** and comparisons are worked out",
    "abs(-1)": "error: only numbers, + - * / // % ** and comparisons are worked out",
    "1 in 2": "error: only numbers, + - * / // % ** and comparisons are worked out",
    "1 and 2": "error: only numbers, + - * / // % ** and comparisons are worked out",
    "True+1": "error: only numbers, + - * / // % ** and comparisons are worked out",
    "'a'*3": "error: only numbers, + - * / // % ** and comparisons are worked out",
    "5 km + 3 km": "error: invalid syntax",
    "1,2+3": "error: only numbers, + - * / // % ** and comparisons are worked out",
    "": "error: invalid syntax",
    "1+" * 40: "error: expression too long",
}


def calculator(**options):
    return registry.load_component("tools", {"use": "calculator", **options})


@pytest.mark.parametrize("expression", RESULTS)
def test_a_result_is_exact_or_an_error_says_why(expression):
    assert calculator()(expression) == RESULTS[expression]


@pytest.mark.parametrize(
    ("expression", "result"), [("1/3", "1/3"), ("1/4", "0.25"), ("-2/3", "-2/3"), ("4/2", "2")]
)
def test_a_fraction_may_stay_one(expression, result):
    assert calculator(fractions=True)(expression) == result


@pytest.mark.parametrize("bomb", ["9**9**9**9", "2**(10**18)", "(" * 400 + ")" * 400, "-" * 900])
def test_no_expression_takes_long(bomb):
    assert calculator(max_characters=1000)(bomb).startswith("error: ")
