"""The framework: it knows no dataset and no particular criterion (those live in `rm_gallery.gallery`)."""
