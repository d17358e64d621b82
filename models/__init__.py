"""Models that take flat keyword arguments, so that a config, a notebook or a test can build them."""
