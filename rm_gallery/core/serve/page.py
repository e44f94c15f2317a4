"""The page at `/`: one file, whose script and style the browser takes by their digests and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files


def load_page() -> tuple[str, dict[str, str]]:
    """(the page, its headers)."""
    page = files("rm_gallery.core.serve").joinpath("page.html").read_text(encoding="utf-8")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_digests('script', page)}",
            f"style-src {_digests('style', page)}",
            "connect-src 'self'",
            "img-src data:",  # an empty icon, so that the browser asks for none
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
    return page, {"Content-Security-Policy": policy}


def _digests(tag: str, page: str) -> str:
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
