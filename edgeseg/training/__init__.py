"""Training of the networks of `edgeseg.models`."""
