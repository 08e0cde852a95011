"""`python -m loralens` is the `loralens` command."""

from loralens.cli.main import main

main()
