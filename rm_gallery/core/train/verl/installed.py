"""Which verl is installed, without importing it: that alone takes torch and half a minute."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models.require import require

VERL_VERSION = "0.9.1"


def require_verl() -> None:
    """Check that the verl which this package is made for is installed.

    Raises:
        MissingDependency: there is no verl.
        ConfigError: it is another version.
    """
    require("verl", "verl")
    try:
        found = metadata.version("verl")
    except metadata.PackageNotFoundError:
        found = "of no known version"  # a bare checkout on the path
    if found.partition("+")[0] != VERL_VERSION:
        raise ConfigError(
            f"verl {found} is installed and this needs verl {VERL_VERSION}, since its keys change with every "
            "version: pip install 'rm-gallery[verl]'"
        )


def config_folder() -> Path:
    """verl's `trainer/config`, from which its `main_ppo` composes a run.

    Raises:
        MissingDependency: there is no verl.
    """
    require("verl", "verl")
    spec = importlib.util.find_spec("verl")  # of a top-level name: nothing is imported
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "trainer" / "config"
