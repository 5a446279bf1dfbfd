"""`python -m busdoor`: the same as `busdoor`."""

import sys

from busdoor.cli import main

if __name__ == "__main__":
    sys.exit(main())
