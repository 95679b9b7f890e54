"""`python -m minimodels` is the command `minimodels`; torchrun starts it this way."""

import sys

from minimodels.cli import main

if __name__ == "__main__":    # a study starts processes, which import this file again
    sys.exit(main())
