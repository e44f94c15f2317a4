"""Convert a dataset as its YAML says.

    python examples/data/data_from_yaml.py --config examples/train/pointwise/data_config.yaml

The same as `rmg data convert`, with the same options. Works from any folder; a relative `output_dir` is
relative to the current one.
"""

import sys

from rm_gallery.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["data", "convert"]
    main()
