"""`python -m rm_gallery` is `rmg`: the form that launchers of several processes take."""

from rm_gallery.cli import main

main()
