"""`rmg`: quickstart."""


def quickstart() -> None:
    """(being written)"""
