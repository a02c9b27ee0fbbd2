"""`python -m skillweave`, the same as `skillweave`."""

import sys

from skillweave.cli import main

sys.exit(main())
