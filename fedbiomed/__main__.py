"""`python -m fedbiomed` is the command `fedbiomed`."""

import sys

from fedbiomed.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
