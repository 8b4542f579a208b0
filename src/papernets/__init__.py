"""Paper Nets: an interactive textbook of papers on efficient deep learning, and the library behind it."""

__version__ = "0.1.0"
