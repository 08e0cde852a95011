"""`python -m loralens` is the `loralens` command."""

from loralens.cli.main import main

if __name__ == "__main__":  # worker processes import this file too
    main()
