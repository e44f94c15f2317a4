"""What the options of several commands say alike."""

TASKS = (
    "pointwise, pairwise, multi_dimension, module.path:Class, or a YAML with the keys task, dimensions, prompt of "
    "rmg train's"
)
