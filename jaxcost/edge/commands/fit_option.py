"""`--require-fit`: an exit status of its own for designs that exceed a constraint."""

import argparse
from typing import Any

__all__ = ["add_require_fit_argument", "fit_status"]

_DOES_NOT_FIT = 3


def add_require_fit_argument(
    parser: Any, condition: str = "a constraint is exceeded, in any system; the output is the same"
) -> None:
    """Add the option to a parser or a group of its options; the help says on which condition it acts."""
    parser.add_argument(
        "--require-fit", action="store_true", help=f"exit with status {_DOES_NOT_FIT} where {condition}"
    )


def fit_status(args: argparse.Namespace, *, exceeded: bool) -> int:
    """Return the exit status of a command whose result may exceed a constraint: 0, or 3 with `--require-fit`."""
    return _DOES_NOT_FIT if args.require_fit and exceeded else 0
