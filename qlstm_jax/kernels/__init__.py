"""The fast paths, each beside the plain path that it must equal."""
