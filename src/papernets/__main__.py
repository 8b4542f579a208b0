"""``python -m papernets`` is the command line."""

from papernets.cli import main

main()
