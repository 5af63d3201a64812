"""``python -m graphdyn``."""

import sys

from graphdyn.cli import main

sys.exit(main())
