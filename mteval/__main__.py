"""``python -m mteval`` is ``mteval``."""

from mteval.cli import main

main()
