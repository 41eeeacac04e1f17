"""What a library's numbers on a chip rest on: rows of that chip, of its architecture, or of neither."""

from jaxcost.edge.catalog.kernels import CIRCUMSTANCES, Circumstance, EfficiencyFile, FitSection
from jaxcost.edge.catalog.parts import architecture_of, chip_keys, scope_of_library, title
from jaxcost.edge.io.errors import InputError

__all__ = [
    "file_circumstance",
    "fit_circumstance",
    "fit_of_place",
    "maker",
    "numbers_keys",
    "stated_architecture",
    "stated_keys",
]


def numbers_keys(name: str, chip: str) -> tuple[str, ...]:
    """Return the keys by which the numbers of a file are chosen: of the chip that an alias names, else of `chip`."""
    scope = scope_of_library(name)
    return stated_keys(chip) if scope is None else scope


def fit_circumstance(fit: FitSection, part: EfficiencyFile, name: str, chip: str) -> Circumstance:
    """Tell whether the chip in use was measured for a fit; one with the numbers of another chip was not."""
    keys, here = numbers_keys(name, chip), stated_keys(chip)
    chips = fit.chips or part.chips
    found = fit.circumstance(here, chips, [stated_architecture(other) for other in chips])
    if found == "shapes" and keys[0] != here[0]:
        return "chip"
    return found if set(keys) & set(here) else "generation"


def file_circumstance(part: EfficiencyFile, name: str, chip: str) -> Circumstance:
    """Return the best circumstance of the fits of a file: the most that can be said of its chips."""
    found = {fit_circumstance(fit, part, name, chip) for fit in part.fits}
    return next(one for one in CIRCUMSTANCES if one in found)


def fit_of_place(
    part: EfficiencyFile, place: tuple[str, str], name: str, chip: str
) -> tuple[FitSection, Circumstance] | None:
    """Return the fit of a kernel that the numbers of a chip rest on, and its circumstance; None without a fit.

    Of several fits of a kernel it is the one that is nearest to the chip, and of these the one of most chips.
    """
    fits = [fit for fit in part.fits if (fit.kernels, fit.bits) == place]
    of: list[tuple[FitSection, Circumstance]] = [
        (fit, fit_circumstance(fit, part, name, chip)) for fit in fits
    ]
    return min(of, key=lambda one: (CIRCUMSTANCES.index(one[1]), -len(one[0].chips)), default=None)


def stated_architecture(chip: str) -> str:
    """Return the architecture of a chip, "" for a chip without file."""
    try:
        return architecture_of(chip)
    except InputError:
        return ""


def stated_keys(chip: str) -> tuple[str, ...]:
    """Return the keys by which files hold numbers of a chip, its name alone for a chip without file."""
    try:
        return chip_keys(chip)
    except InputError:
        return (chip,)


def maker(chip: str) -> str:
    """Return the maker of a chip, the first word of its title; "" for a chip without file."""
    try:
        return title("chips", chip).split()[0]
    except InputError:
        return ""
