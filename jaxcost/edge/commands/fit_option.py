"""`--require-fit`: an exit status of its own for designs that exceed a constraint."""

import argparse

__all__ = ["DOES_NOT_FIT", "add_require_fit_argument", "fit_status"]

DOES_NOT_FIT = 3


def add_require_fit_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--require-fit",
        action="store_true",
        help=f"exit with status {DOES_NOT_FIT} where a constraint is exceeded, in any system; the output is the same",
    )


def fit_status(args: argparse.Namespace, *, exceeded: bool) -> int:
    """Return the exit status of a command whose result may exceed a constraint: 0, or 3 with `--require-fit`."""
    return DOES_NOT_FIT if args.require_fit and exceeded else 0
