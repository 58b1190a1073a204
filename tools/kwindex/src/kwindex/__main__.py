"""Runs the command line as `python -m kwindex`."""

import sys

from kwindex.cli import main

if __name__ == "__main__":
    sys.exit(main())
