"""rm_gallery: from human judgments to reward models and judges that can be trusted."""

__version__ = "0.1.0"
