"""The command line: options, progress, tables and exit codes."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line (the console script)."""
    try:
        from arcforge.cli.app import main as run

        run()
    except KeyboardInterrupt:  # while modules are imported, before the rules of ``app`` hold
        sys.stderr.write("arcforge: interrupted\n")
        sys.exit(130)
