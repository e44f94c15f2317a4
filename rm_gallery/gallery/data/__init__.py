"""Data that ships with the package, and converters of public datasets."""
