"""``python -m diator``: the command line, where the script ``diator`` is not on the path."""

from diator.cli import main

main()
