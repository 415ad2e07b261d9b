"""`python -m resshift_cli` is `resshift`."""

from resshift_cli.cli import main

main()
