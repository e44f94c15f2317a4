"""Training with verl: its configuration from ours, its process, its figures under our names."""
