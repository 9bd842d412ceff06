"""Amounts of money as integers of millionths, so that sums are exact. Knows no currency: prices and budgets share one.

On the wire an amount is a number. A double holds every amount up to ``MAX_AMOUNT`` with six decimals exactly enough
that its shortest decimal form is the amount.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final

from msgspec import Meta

from ragsvc.core.validation import invalid_value

MICROS: Final = 1_000_000
"""Millionths in a unit of money."""
MAX_AMOUNT: Final = 1_000_000_000
DECIMALS: Final = 6

Amount = Annotated[float, Meta(ge=0, le=MAX_AMOUNT, description="In the currency of the prices; up to 6 decimals")]


def to_micros(name: str, amount: float) -> int:
    """An amount in millionths.

    Raises:
        InvalidRequest: it has more than six decimals; ``name`` is the parameter.

    >>> to_micros("money_balance", 0.1), to_micros("money_balance", 12)
    (100000, 12000000)
    """
    exact = Decimal(repr(amount)) * MICROS
    micros = int(exact)
    if micros != exact:
        raise invalid_value(name, f"Expected at most {DECIMALS} decimals")
    return micros


def to_amount(micros: int) -> float:
    """The amount of a number of millionths.

    >>> to_amount(100_001)
    0.100001
    """
    return micros / MICROS


def show_amount(micros: int) -> str:
    """An amount as text.

    >>> show_amount(1_500_000), show_amount(-1), show_amount(99_000_000)
    ('1.5', '-0.000001', '99')
    """
    sign, digits = ("-" if micros < 0 else ""), f"{abs(micros):07d}"
    return f"{sign}{digits[:-6]}.{digits[-6:]}".rstrip("0").rstrip(".")
