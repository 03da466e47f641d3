"""`python -m fedbiomed.node.cli`: the old spelling of `fedbiomed node`.

A node's code knows no commands, so this runs their program in its own place instead of importing it.
"""

import os
import sys

if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-m", "fedbiomed.cli.old_spellings", "node", *sys.argv[1:]])
