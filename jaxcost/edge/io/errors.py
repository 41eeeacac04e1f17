"""Errors of bad input and of runs that cannot continue; the text of each is one line."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

__all__ = ["InputError", "RunError", "nearest", "not_among", "within"]


T = TypeVar("T")


def nearest(given: str, valid: Iterable[str]) -> str | None:
    """Return the valid name that is most similar to `given`, None if none is similar."""
    lowered = {name.lower(): name for name in valid}
    close = difflib.get_close_matches(str(given).lower(), list(lowered), n=1, cutoff=0.5)
    return lowered[close[0]] if close else None


class InputError(ValueError):
    """Bad input: its file and dotted path, what was given, what was expected, and the nearest valid name.

    Its text is one line:  `FILE: dotted.path: got GIVEN; expected EXPECTED; did you mean NEAREST?`
    """

    def __init__(
        self,
        expected: str,
        *,
        file: object = None,
        path: str = "",
        given: object = None,
        suggestion: str | None = None,
    ) -> None:
        """Compose the text; absent parts are left out."""
        self.file, self.path, self.given, self.expected, self.suggestion = (
            file,
            path,
            given,
            expected,
            suggestion,
        )
        parts = [str(p) for p in (file, path) if p not in (None, "")]
        text = f"expected {expected}"
        if given is not None:
            shown = given if isinstance(given, str) else repr(given)
            shown = " ".join(str(shown).split())
            text = f"got {shown[:80]!r}; {text}" if isinstance(given, str) else f"got {shown[:80]}; {text}"
        if suggestion:
            text += f"; did you mean {suggestion!r}?"
        super().__init__(" ".join(": ".join([*parts, text]).split()))


def not_among(valid: Iterable[str], given: str, *, file: object = None, path: str = "") -> InputError:
    """Return the error of a name that is not one of the valid names."""
    names = list(valid)
    return InputError(
        "one of " + ", ".join(names), file=file, path=path, given=given, suggestion=nearest(given, names)
    )


def within(file: object, path: str, load: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Return `load(*arguments, **options)`; an `InputError` without a file gets this file and dotted path."""
    try:
        return load(*arguments, **options)
    except InputError as error:
        if error.file is not None or not path:
            raise
        raise InputError(
            error.expected, file=file, path=path, given=error.given, suggestion=error.suggestion
        ) from None


class RunError(RuntimeError):
    """A run that cannot continue for a reason outside its input: a full disk, a lost worker, a request to stop.

    Its text is one line that says which results are kept and how to continue.
    """

    def __init__(self, text: str, *, status: int = 1) -> None:
        """Take the text and the exit status of the command."""
        self.status = status
        super().__init__(" ".join(text.split()))
