"""The command line: one file a command, read only when its command is called.

A command's module, `jaxcost/edge/commands/<command>.py`, has `add_<command>_arguments(parser)` and
`<command>_command(args) -> int`. Bad input ends in exit status 2 and one line on stderr.
"""

import argparse
import importlib
import os
import platform
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from jaxcost.edge.io.errors import InputError, RunError, nearest

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "evaluate": "one model on one system: time, memory, energy, cost, carbon, operator by operator",
    "compare": "one model on several systems, side by side",
    "serve": "what serving a rate of requests within targets takes: replicas, latencies, cost of a token",
    "sweep": "many designs from a space file",
    "codesign": "which hardware to build, by gradient, and what every limit costs",
    "calibrate": "fit the kernels of serving libraries to measured rows",
    "validate": "how far calibrated kernels are from measured rows",
    "sensitivity": "how much a result moves with each number of the hardware",
    "figures": "every figure and table of the experiments, and a page with all of them",
    "list": "what the catalogue holds, with the source of every number",
}

_DESCRIPTION = "Latency, capacity, energy, cost and carbon of LLM inference on a given hardware."


class _UsageError(Exception):
    """A command line that does not parse."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and name the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise _UsageError(self._improve(message))

    def _improve(self, message: str) -> str:
        message = " ".join(message.split()).removeprefix("argument ")
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            given = unknown[1].split("=")[0]
            options = [o for o in self._option_string_actions if o.startswith("--")]
            near = nearest(given, options) if given.startswith("-") else None
            kind = "option" if given.startswith("-") else "argument"
            return f"unknown {kind} {given!r}" + (f"; did you mean {near!r}?" if near else "; see --help")
        missing = re.match(r"the following arguments are required: (.*)", message)
        either = re.match(r"one of the arguments (.*) is required", message)
        if either:
            return f"missing {' or '.join(either[1].split())}; see --help"
        return f"missing {missing[1]}; see --help" if missing else message


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status: 0, or 2 for bad input."""
    status = _status(list(sys.argv[1:] if argv is None else argv))
    workers = sys.modules.get("jaxcost.edge.jobs.workers")
    if workers is not None:
        workers.exit_worker(status)
    return status


def _status(given: list[str]) -> int:
    name = given[0] if given else ""
    try:
        return _run(given)
    except (InputError, _UsageError) as error:
        program = f"jaxcost {name}" if name in COMMANDS else "jaxcost"
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"jaxcost {name}: {error}", file=sys.stderr)
        return error.status
    except SystemExit as stop:  # argparse ends --help so
        return int(stop.code or 0)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("jaxcost: interrupted", file=sys.stderr)
        return 130


def _run(given: list[str]) -> int:
    parser = _overview()
    if not given:
        raise _UsageError(f"a command is missing; there are {', '.join(COMMANDS)}; see --help")
    name = given[0]
    if name in ("-h", "--help"):
        print(parser.format_help(), end="")
        return 0
    if name not in COMMANDS:
        near = nearest(name, COMMANDS)
        hint = f"; did you mean {near!r}?" if near else f"; there are {', '.join(COMMANDS)}"
        raise _UsageError(f"unknown command {name!r}{hint}")
    module = importlib.import_module(f"jaxcost.edge.commands.{name}")
    command = _Parser(prog=f"jaxcost {name}", description=_sentence(COMMANDS[name]), allow_abbrev=False)
    getattr(module, f"add_{name}_arguments")(command)
    args = command.parse_args(given[1:], argparse.Namespace(arguments=tuple(given)))
    _keep_compiled()
    status = getattr(module, f"{name}_command")(args)
    sys.stdout.flush()
    return status


def _keep_compiled() -> None:
    """Keep what is compiled for the next command, where `JAX_COMPILATION_CACHE_DIR` says or in the user's cache."""
    import jax

    config: Any = jax.config  # versions differ in what it declares
    if config.jax_compilation_cache_dir is None:
        caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        # By machine, for processors that share a home may differ.
        config.update("jax_compilation_cache_dir", os.path.join(caches, "jaxcost", platform.node()))


def _overview() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    return argparse.ArgumentParser(
        prog="jaxcost",
        usage="jaxcost COMMAND [options]",
        description=_DESCRIPTION,
        epilog=f"commands:\n{listing}\n\nEvery command explains itself with --help.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
