"""One paper, one module: read it top to bottom, from the smallest function to the verb that applies it to a model."""
