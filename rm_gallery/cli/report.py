"""`rmg`: report."""


def report() -> None:
    """(being written)"""
