"""``python -m simswitch`` is the program ``simswitch``."""

from simswitch.cli.main import main

main()
