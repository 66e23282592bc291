"""`python -m adapter` is the console script `miaas-adapter`."""

from adapter.cli import main

main()
