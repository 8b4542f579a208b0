"""What the chapters draw: one module a paper, so that notebooks stay thin and methods know nothing of plotting."""
