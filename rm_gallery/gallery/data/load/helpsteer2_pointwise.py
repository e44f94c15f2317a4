"""HelpSteer2 (nvidia/HelpSteer2): responses rated from 0 to 4 on five attributes."""

from __future__ import annotations

from rm_gallery.core.data.converters import Converter, category, register_converter, text, whole_number
from rm_gallery.core.data.samples import Row, Sample
from rm_gallery.gallery.data.load.helpsteer2_turns import chat_turns


@register_converter("helpsteer2_pointwise")
class HelpSteer2PointwiseConverter(Converter):
    """Rows `prompt, response, helpfulness, correctness, coherence, complexity, verbosity`.

    `helpfulness` must be there; the other attributes may be missing, and are null then.
    """

    kind = "pointwise"
    label_names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")

    def parse(self, row: Row) -> Sample:
        turns, response = chat_turns(row), text(row, "response")
        labels = {"helpfulness": whole_number(row, "helpfulness", 0, 4)}
        for name in self.label_names[1:]:
            value = whole_number(row, name, 0, 4, optional=True)
            if value is not None:
                labels[name] = value
        return Sample(
            input=turns,
            response=response,
            labels=labels,
            data_source="helpsteer2",
            task_category=category(row),
        )
