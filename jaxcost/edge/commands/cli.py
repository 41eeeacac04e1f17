"""The command line: one module a command, imported only when its command is called.

A command's module, `jaxcost/edge/commands/<command>.py`, has `add_<command>_arguments(parser)` and
`<command>_command(args) -> int`. Bad input gives exit status 2 and one line on stderr, and `--require-fit` status 3
where a constraint is exceeded.
"""

import argparse
import importlib
import os
import platform
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from jaxcost.edge.commands.waiting import announce_compilation
from jaxcost.edge.io.errors import InputError, RunError, nearest

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "evaluate": "evaluate one model on one system: time, memory, energy, cost and carbon, by operator",
    "fit": "report what fits in memory as a serving engine divides it: requests, longest context, chips needed",
    "compare": "compare one model on several systems, or memory types",
    "serve": "size a deployment for a rate of requests: replicas, latencies, cost per token",
    "recommend": "recommend the cheapest plan and engine settings for a load, with launch lines",
    "pareto": "find the front of tokens/s per chip against tokens/s per user, over plans, batches and precisions",
    "bench": "predict what a benchmark client reports at every load, in closed form and replayed",
    "sweep": "evaluate every design of a space, and report the best and the Pareto front",
    "codesign": "optimise hardware and plan by gradient, and report the price of every limit",
    "replay": "replay a trace of requests on an engine: percentiles of latency, goodput, throughput and cost",
    "trace": "describe a trace of requests, recorded or synthetic: rate, lengths, hit rate of a prefix cache",
    "calibrate": "fit the kernel models of serving libraries to measurements",
    "validate": "report the error of calibrated kernel models on measurements",
    "sensitivity": "report the elasticity of a metric in every number of the system",
    "figures": "reproduce the figures and tables of the experiments, and a page with all of them",
    "list": "list the catalogue, with the source of every number",
}

_DESCRIPTION = "Latency, memory, energy, cost and carbon of LLM inference on given hardware."


class _UsageError(Exception):
    """A command line that does not parse."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and suggest the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Raise an error instead of printing the usage."""
        raise _UsageError(self._improve(message))

    def _improve(self, message: str) -> str:
        message = " ".join(message.split()).removeprefix("argument ")
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            argument = unknown[1].split("=")[0]
            options = [o for o in self._option_string_actions if o.startswith("--")]
            near = nearest(argument, options) if argument.startswith("-") else None
            kind = "option" if argument.startswith("-") else "argument"
            return f"unknown {kind} {argument!r}" + (f"; did you mean {near!r}?" if near else "; see --help")
        missing = re.match(r"the following arguments are required: (.*)", message)
        either = re.match(r"one of the arguments (.*) is required", message)
        if either:
            return f"missing {' or '.join(either[1].split())}; see --help"
        return f"missing {missing[1]}; see --help" if missing else message


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status: 0, 2 for bad input, or 3 with `--require-fit`."""
    status = _status(list(sys.argv[1:] if argv is None else argv))
    workers = sys.modules.get("jaxcost.edge.jobs.workers")
    if workers is not None:
        workers.exit_worker(status)
    return status


def _status(argv: list[str]) -> int:
    name = argv[0] if argv else ""
    try:
        return _run(argv)
    except (InputError, _UsageError) as error:
        program = f"jaxcost {name}" if name in COMMANDS else "jaxcost"
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"jaxcost {name}: {error}", file=sys.stderr)
        return error.status
    except SystemExit as stop:  # raised by argparse after --help
        return int(stop.code or 0)
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("jaxcost: interrupted", file=sys.stderr)
        return 130


def _run(argv: list[str]) -> int:
    parser = _overview()
    if not argv:
        raise _UsageError(f"a command is missing; expected one of {', '.join(COMMANDS)}; see --help")
    name = argv[0]
    if name in ("-h", "--help"):
        print(parser.format_help(), end="")
        return 0
    if name == "--version":
        from jaxcost import __version__

        print(f"jaxcost {__version__}")
        return 0
    if name not in COMMANDS:
        near = nearest(name, COMMANDS)
        hint = f"; did you mean {near!r}?" if near else f"; expected one of {', '.join(COMMANDS)}"
        raise _UsageError(f"unknown command {name!r}{hint}")
    module = importlib.import_module(f"jaxcost.edge.commands.{name}")
    command = _Parser(prog=f"jaxcost {name}", description=_sentence(COMMANDS[name]), allow_abbrev=False)
    getattr(module, f"add_{name}_arguments")(command)
    args = command.parse_args(argv[1:], argparse.Namespace(arguments=tuple(argv)))
    _enable_compilation_cache()
    status = getattr(module, f"{name}_command")(args)
    sys.stdout.flush()
    return status


def _enable_compilation_cache() -> None:
    """Turn on JAX's compilation cache, in `JAX_COMPILATION_CACHE_DIR` or in the user's cache folder."""
    import jax

    config: Any = jax.config  # its declared attributes differ between versions
    if config.jax_compilation_cache_dir is None:
        caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        # One folder a machine, as machines that share a home folder may have different processors.
        config.update("jax_compilation_cache_dir", os.path.join(caches, "jaxcost", platform.node()))
    if sys.stderr.isatty():
        announce_compilation(str(config.jax_compilation_cache_dir))


def _overview() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    return argparse.ArgumentParser(
        prog="jaxcost",
        usage="jaxcost COMMAND [options] | --version",
        description=_DESCRIPTION,
        epilog=f"commands:\n{listing}\n\nSee `jaxcost COMMAND --help` for the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
