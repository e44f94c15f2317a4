"""Published benchmarks, in their publishers' own formats and with their own aggregation."""
