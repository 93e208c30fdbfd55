"""Well-formed card numbers for tests."""

from simswitch.inventory.digits import luhn_check_digit


def iccid(number: int, length: int = 19) -> str:
    """An ICCID of this length with a right check digit."""
    body = f"898110{number:0{length - 7}d}"
    return body + str(luhn_check_digit(body))


def imsi(number: int) -> str:
    """An IMSI of 15 digits."""
    return f"44010{number:010d}"
