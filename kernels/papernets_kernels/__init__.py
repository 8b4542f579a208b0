"""CPU kernels in numba: numpy arrays in, numpy arrays out, threads explicit. They know nothing of torch."""
