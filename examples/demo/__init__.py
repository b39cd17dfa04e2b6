"""Max-norm in NumPy, PyTorch and JAX: one computation, three libraries, with and without it."""
