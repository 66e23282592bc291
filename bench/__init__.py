"""The adapter beside its peers: on the same Triton, in one interleaved run."""
