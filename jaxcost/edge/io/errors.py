"""The one error a user's input can cause, told in one line."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

__all__ = ["InputError", "RunError", "nearest", "not_among", "within"]


T = TypeVar("T")


def nearest(given: str, valid: Iterable[str]) -> str | None:
    """Return the valid name most like the one given, if any is close."""
    names = list(valid)
    lowered = {n.lower(): n for n in names}
    close = difflib.get_close_matches(str(given).lower(), list(lowered), n=1, cutoff=0.5)
    return lowered[close[0]] if close else None


class InputError(ValueError):
    """Bad input: where it stands, what was given, what was expected, and the nearest right thing.

    Its text is always one line:  `FILE: dotted.path: got GIVEN; expected EXPECTED; did you mean NEAREST?`
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
        """Compose the line from its parts; parts that are absent are left out."""
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
    """Make the error of a name that is none of those valid."""
    names = list(valid)
    return InputError(
        "one of " + ", ".join(names), file=file, path=path, given=given, suggestion=nearest(given, names)
    )


def within(file: object, path: str, load: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Load what a field of a file names; where the name is unknown, say in which field of which file it stands."""
    try:
        return load(*arguments, **options)
    except InputError as error:
        if error.file is not None or not path:
            raise
        raise InputError(
            error.expected, file=file, path=path, given=error.given, suggestion=error.suggestion
        ) from None


class RunError(RuntimeError):
    """A run that cannot go on for a reason outside its input: a full disk, a lost worker, a request to stop.

    Its text is one line that says what is kept and how to go on.
    """

    def __init__(self, text: str, *, status: int = 1) -> None:
        """Take the line and the exit status of a command that ends so."""
        self.status = status
        super().__init__(" ".join(text.split()))
