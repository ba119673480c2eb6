"""Tasks about dates: the day of the week, days between two dates, the date after so many days."""

from __future__ import annotations

import calendar
import random
from datetime import date, timedelta

from llmstages.data.jagged.items import Item, Style

FIRST, LAST = date(1990, 1, 1), date(2049, 12, 31)
WEEK = 7
KINDS = 3

WEEKDAY = (
    "{start} is a {given}. What day of the week is {end}?",
    "If {start} is a {given}, which weekday is {end}?",
    "The weekday of {start} is {given}. What is the weekday of {end}?",
)
BETWEEN = (
    "How many days are there from {start} to {end}?",
    "How many days after {start} is {end}?",
    "How many days lie between {start} and {end}, counting the last one?",
)
AFTER = (
    "What date is {days} days after {start}?",
    "Which date comes {days} days after {start}?",
    "Add {days} days to the date {start}. What is the result?",
)


def dates(rng: random.Random, size: int, number: int, style: Style) -> Item:
    """One of the three questions, over at most ``size`` days; the weekdays take turns."""
    start = FIRST + timedelta(days=rng.randint(0, (LAST - FIRST).days))
    days = rng.randint(1, size)
    kind = number % KINDS
    if kind == 0:
        # The answer takes turns, so that no day of the week is right more often than another.
        offset = (number // KINDS - (start + timedelta(days=days)).weekday()) % WEEK
        start += timedelta(days=offset)
        return _weekday(rng, start, days, style)
    return (_between if kind == 1 else _after)(rng, start, days, style)


def _key(start: date) -> str:
    return f"date {start}"


def _weekday(rng: random.Random, start: date, days: int, style: Style) -> Item:
    end = start + timedelta(days=days)
    given, answer = calendar.day_name[start.weekday()], calendar.day_name[end.weekday()]
    rest = days % WEEK
    counted = [calendar.day_name[(start.weekday() + day) % WEEK] for day in range(rest + 1)]
    steps = f"{_span(start, end)} {days} = {days // WEEK} * 7 + {rest}. {', '.join(counted)}."
    return Item(
        question=style.phrase(rng, WEEKDAY).format(start=start, end=end, given=given),
        answer=answer,
        key=_key(start),
        steps=steps,
        code=f'import datetime; {_code(end)}.strftime("%A")',
        kind="choice",
        meta={"options": list(calendar.day_name), "given": given},
    )


def _between(rng: random.Random, start: date, days: int, style: Style) -> Item:
    end = start + timedelta(days=days)
    return Item(
        question=style.phrase(rng, BETWEEN).format(start=start, end=end),
        answer=str(days),
        key=_key(start),
        steps=_span(start, end),
        code=f"import datetime; ({_code(end)} - {_code(start)}).days",
        kind="number",
    )


def _after(rng: random.Random, start: date, days: int, style: Style) -> Item:
    end = start + timedelta(days=days)
    return Item(
        question=style.phrase(rng, AFTER).format(start=start, days=days),
        answer=str(end),
        key=_key(start),
        steps=_forward(start, days),
        code=f"import datetime; str({_code(start)} + datetime.timedelta(days={days}))",
        kind="words",
        aliases=_forms(end),
    )


def _code(day: date) -> str:
    return f"datetime.date({day.year}, {day.month}, {day.day})"


def _next_month(day: date) -> date:
    """The first day of the next month."""
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


def _span(start: date, end: date) -> str:
    """The days between two dates, month by month."""
    lines = []
    total = 0
    while start < end:
        stop = min(end, _next_month(start))
        days = (stop - start).days
        total += days
        lines.append(f"{start} to {stop}: {days}, together {total}.")
        start = stop
    return " ".join(lines)


def _forward(start: date, days: int) -> str:
    """So many days forward, month by month."""
    lines = []
    while days:
        stop = min(start + timedelta(days=days), _next_month(start))
        days -= (stop - start).days
        lines.append(f"{stop}: {days} left.")
        start = stop
    return " ".join(lines)


def _forms(day: date) -> list[str]:
    """The ways in which a date is written, but for the one of the questions."""
    month = calendar.month_name[day.month]
    names = [month] if month == "May" else [month, month[:3]]
    ordinals = [str(day.day), f"{day.day}{_ending(day.day)}"]
    forms = []
    for name in names:
        for number in ordinals:
            forms += [f"{name} {number}, {day.year}", f"{name} {number} {day.year}"]
            forms += [f"{number} {name} {day.year}", f"{number} of {name} {day.year}"]
            forms += [f"{number} of {name}, {day.year}", f"{number} {name}, {day.year}"]
    return [*forms, f"{day:%Y/%m/%d}", f"{day:%Y.%m.%d}"]


def _ending(number: int) -> str:
    if number in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
