"""`python -m fedbiomed.common.cli certificate-dev-setup`: an old spelling, which says what became of it.

The common part knows no commands, so this runs their program in its own place instead of importing it.
"""

import os
import sys

if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-m", "fedbiomed.cli.old_spellings", "common", *sys.argv[1:]])
