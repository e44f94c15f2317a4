"""`rmg`: evaluate."""


def evaluate() -> None:
    """(being written)"""
