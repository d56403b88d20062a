"""Numbers in words: how values, times and counts are written for people."""

from __future__ import annotations

from datetime import timedelta


def say_value(value: float | None) -> str:
    """Return a value with three significant digits, without an exponent if it is large."""
    if value is None:
        return "–"
    short = f"{value:.3g}"
    return f"{value:,.0f}" if abs(float(short)) >= 1000 else short


def say_speed(times: float) -> str:
    """Return how many times faster something is, with three significant digits: `1,070×`."""
    short = float(f"{times:.3g}")
    return f"{short:,.0f}×" if short >= 1000 else f"{times:.3g}×"


def say_time(seconds: float) -> str:
    """Return a time in hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def say_count(number: int, thing: str, things: str = "") -> str:
    """Return how many things there are: `1 candidate`, `2 candidates`."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"
