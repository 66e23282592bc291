"""Models that only tests need: sources for Triton's python backend, and what writes their folders."""
