"""`rmg`: train."""


def train() -> None:
    """(being written)"""
