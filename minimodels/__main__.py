"""`python -m minimodels` is the command `minimodels`; torchrun starts it this way."""

import sys

from minimodels.cli import main

sys.exit(main())
