"""Run the command line: `python -m jaxcost`."""

import sys

from jaxcost.edge.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
