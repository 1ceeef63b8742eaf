"""`python -m rllib_odac.cli`."""

from rllib_odac.cli import main

main()
