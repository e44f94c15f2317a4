"""Ask for an optional part of the package with a sentence instead of an ImportError."""

from __future__ import annotations

import importlib.util

from rm_gallery.core.errors import MissingDependency


def require(extra: str, *modules: str) -> None:
    """Check that `modules` of the extra are installed.

    Raises:
        MissingDependency: one is not; says what to install.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingDependency(
            f"this needs {', '.join(missing)}, which is not installed: pip install 'rm-gallery[{extra}]'"
        )
