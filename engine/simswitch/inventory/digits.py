"""Columns of decimal digits, whole columns at a time.

A column of text becomes a NumPy array of fixed-width strings, and that a matrix of code points: one row for each item,
one column for each character, 0 beyond the end. Everything else is arithmetic on the matrix's columns: lengths,
numbers and check digits of a chunk of 65,536 lines cost a handful of vector operations, not a Python call for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.uint64]

_DIGITS_MAX = 20
"""Longest decimal that this module turns into a number."""


class DigitColumn:
    """A column of text that should be decimal digits."""

    def __init__(self, texts: Sequence[str]) -> None:
        array = np.array(texts, dtype=np.str_)
        width = max(1, array.dtype.itemsize // 4)
        codes = np.ascontiguousarray(array).view(np.uint32).reshape(len(texts), width)
        self.length: npt.NDArray[np.int64] = (codes != 0).sum(axis=1)
        """Characters of each item."""
        self._digits = (codes - np.uint32(48)).T.copy()  # by position, so that every operation runs along memory
        is_digit = self._digits < 10
        self.decimal: Bools = (is_digit | (codes.T == 0)).all(axis=0)
        """Which items have nothing but ASCII digits. An empty one counts as such."""

    def numbers(self, fallback: int = 0) -> tuple[Numbers, Bools]:
        """The values, and which of them are numbers below 2^64. An empty item is ``fallback``; a bad one is 0."""
        value = np.zeros(len(self.length), np.uint64)
        fits = self.decimal & (self.length <= _DIGITS_MAX)
        limit = np.uint64(2**64 - 1)
        for position, digits in enumerate(self._digits[:_DIGITS_MAX]):
            inside = fits & (self.length > position)
            digit = np.where(inside, digits, 0).astype(np.uint64)
            if position == _DIGITS_MAX - 1:
                # Only the twentieth digit can pass 2^64.
                too_large = inside & (
                    (value > limit // np.uint64(10)) | ((value == limit // np.uint64(10)) & (digit > 5))
                )
                fits &= ~too_large
                inside &= ~too_large
            value = np.where(inside, value * np.uint64(10) + digit, value)
        value[~fits] = 0
        value[self.length == 0] = fallback
        return value, fits

    def suffix_numbers(self, start: int) -> Numbers:
        """The values of the digits from position ``start`` on; only for items with at most 18 digits there."""
        value = np.zeros(len(self.length), np.uint64)
        for position, digits in enumerate(self._digits[start:], start):
            inside = self.decimal & (self.length > position)
            value = np.where(inside, value * np.uint64(10) + np.where(inside, digits, 0).astype(np.uint64), value)
        return value

    def starts_with(self, prefix: str) -> Bools:
        """Which items begin with these digits."""
        result = self.length >= len(prefix)
        for position, character in enumerate(prefix[: len(self._digits)]):
            result &= self._digits[position] == ord(character) - 48
        return result

    def luhn_remainder(self) -> npt.NDArray[np.uint8]:
        """The Luhn sum of each item modulo 10, check digit included: 0 where the check digit is right."""
        total = np.zeros(len(self.length), np.uint32)
        for position, digits in enumerate(self._digits):
            from_right = self.length - position
            inside = self.decimal & (from_right > 0)
            digit = np.where(inside, digits, 0)
            doubled = digit * 2
            doubled -= np.where(doubled > 9, 9, 0).astype(np.uint32)
            total += np.where(inside & (from_right % 2 == 0), doubled, digit)
        return (total % 10).astype(np.uint8)


def luhn_check_digit(digits: str) -> int:
    """The check digit that belongs behind these digits."""
    total = 0
    for place, character in enumerate(reversed(digits)):
        digit = int(character)
        if place % 2 == 0:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return -total % 10
