"""``python -m mttrain``, which is what ``accelerate launch -m mttrain`` starts in every process."""

from mttrain.cli import main

main()
