"""HelpSteer2-Preference (nvidia/HelpSteer2, folder `preference`): two responses and a preference strength."""

from __future__ import annotations

from rm_gallery.core.data.converters import Converter, category, register_converter, text, whole_number
from rm_gallery.core.data.samples import Pair, Preferred, Row
from rm_gallery.gallery.data.load.helpsteer2_turns import chat_turns


@register_converter("helpsteer2_pairwise")
class HelpSteer2PairwiseConverter(Converter):
    """Rows `prompt, response_1, response_2, preference_strength` from -3 to 3.

    A positive strength means that `response_2` (B) is better, 0 is a tie. `convert` gives two samples, in
    the order of the row and swapped.
    """

    kind = "pairwise"

    def parse(self, row: Row) -> Pair:
        strength = whole_number(row, "preference_strength", -3, 3)
        preferred: Preferred = "B" if strength > 0 else "A" if strength < 0 else "tie"
        return Pair(
            input=chat_turns(row),
            response_a=text(row, "response_1"),
            response_b=text(row, "response_2"),
            preferred=preferred,
            strength=strength,
            data_source="helpsteer2",
            task_category=category(row),
        )
