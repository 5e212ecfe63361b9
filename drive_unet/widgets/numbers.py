"""Measured numbers, as the notebooks print them: with their range, checked where it is known."""

from __future__ import annotations

from drive_unet.data.drive import Drive


def measured(
    name: str, value: float, low: float | None, high: float | None, *, digits: int = 3, unit: str = ""
) -> None:
    """Print a measured number, and check that it lies where it lay when the notebook was written.

    The sign ≈ says that the number may differ a little from machine to machine. On the embedded painted
    photographs it must lie in the range given; where `load_drive` found others it may be anything, and is
    only printed.

    Args:
        name: what was measured.
        value: the number.
        low, high: the range, both ends included; None for a number that may be anything, such as one of a
            reader's own photograph.
        digits: after the decimal point.
        unit: printed after the number.

    Raises:
        AssertionError: if the number is out of range (or no number) on the embedded photographs.

    Example:
        >>> measured("Dice", 0.8123, 0.8, 0.82)
        Dice ≈ 0.812
    """
    print(f"{name} ≈ {value:,.{digits}f}{f' {unit}' if unit else ''}")
    if low is None or high is None or Drive.latest not in (None, "embedded"):
        return
    if not low <= value <= high:
        raise AssertionError(
            f"{name} is {value:.{digits + 1}f}, outside {low} to {high}, where it lay when this was written"
        )
