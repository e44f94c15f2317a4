"""The errors a user is meant to read: each message says what is wrong, where, and what to do."""


class RMGalleryError(Exception):
    """Base of every error whose message is a sentence for the user. `rmg` prints it without a traceback."""


class ConfigError(RMGalleryError):
    """A configuration file, option or name that cannot be used."""


class DataError(RMGalleryError):
    """Input data that cannot be used: names the file and line, or the row."""


class InvalidVerdict(RMGalleryError):
    """A model's output holds no single legal verdict. Expected in normal work: counted, never a number."""


class UnfinishedReasoning(InvalidVerdict):
    """The reasoning was cut off before a verdict: a `<think>` is never closed."""


class MissingReward(RMGalleryError):
    """A response that could not be scored, where nothing but a number will do: names the cause."""


class MissingDependency(RMGalleryError):
    """An optional part of the package is needed and is not installed."""


def nearest(name: str, known: list[str]) -> str:
    """Return " Did you mean 'x'?" for the known name closest to `name`, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
