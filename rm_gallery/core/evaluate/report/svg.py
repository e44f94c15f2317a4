"""Drawing to inline SVG: the same figures give the same bytes, and text stays text."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape

# Okabe and Ito's colours, told apart also by those who do not see red and green as different
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY, INK, SOFT, GRID = "#8a8f98", "#22252a", "#5b616b", "#eceef1"
MISSING = Markup(
    '<p class="note">The plot is left out: matplotlib is not installed (pip install "rm-gallery[plot]").</p>'
)
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a model's name may hold a dollar
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#c4c8ce",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def draw(plot: Callable[[Any], None], name: str, description: str, width: float, height: float) -> Markup:
    """What `plot` draws on its axes, or `MISSING`.

    Args:
        name: differs between the drawings of a page, for their ids do.
        description: for those who do not see it.
        width, height: in inches at most; narrower screens scale it down.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return MISSING
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's browser has the font
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        plot(figure.subplots())
        buffer = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    opening = f'<svg role="img" aria-label="{escape(description)}" style="max-width:{round(width * 96)}px"'

    def tag(match: re.Match[str]) -> str:
        # several drawings share a page: their ids must differ
        found = re.sub(r'(\bid="|href="#|url\(#)', lambda m: f"{m[1]}{name}-", match[0])
        if found.startswith("<svg"):
            found = opening + re.sub(r' (?:width|height)="[\d.]+pt"', "", found.removeprefix("<svg"))
        return found

    return Markup(re.sub(r"<[^>]+>", tag, text))
