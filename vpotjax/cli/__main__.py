"""python -m vpotjax.cli, where no script is installed."""

import sys

from vpotjax.cli import main

if __name__ == "__main__":
    sys.exit(main())
