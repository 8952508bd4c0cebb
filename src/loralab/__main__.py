"""`python -m loralab` is the command `loralab`."""

import sys

from loralab.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
