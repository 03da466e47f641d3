"""`python -m fedbiomed.researcher.cli`: the old spelling of `fedbiomed researcher`.

A researcher's code knows no commands, so this runs their program in its own place instead of importing it.
"""

import os
import sys

if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-m", "fedbiomed.cli.old_spellings", "researcher", *sys.argv[1:]])
