"""Whether a folder of results is whole and as it was made, by its ledger alone: no model is asked.

Every input has to have a result, made of what the input is now, and untouched since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from resshift_cli.batch.ledger import Ledger
from resshift_cli.batch.places import MISSING, is_below
from resshift_cli.batch.record import Record
from resshift_cli.errors import ResShiftError
from resshift_cli.imaging import own
from resshift_cli.imaging.folders import Beside, Inputs
from resshift_cli.imaging.sources import Source
from resshift_cli.system import atomic
from resshift_cli.system.index import Index


@dataclass(frozen=True, slots=True)
class Finding:
    """What is true of one input.

    Attributes:
        input: path within the folder of inputs.
        output: path of its result within the folder of results; "" if there was none.
        problem: why it is not proven; "" if it is.
        is_gone: whether there is only the result any more.
        record: what the ledger has of it.
    """

    input: str
    output: str
    problem: str = ""
    is_gone: bool = False
    record: Record | None = None


def verify(
    inputs: Inputs,
    ledger: Ledger,
    beside: Beside,
    mask: Callable[[str], str | None] = lambda place: None,
) -> Iterator[Finding]:
    """Look at every input, and at results whose inputs are gone; both are read whole.

    Args:
        inputs: the images.
        ledger: of the results.
        beside: is told what there is beside them.
        mask: gives the SHA-256 of an input's mask, see `Craft.sha256_beside`; None where none is
            looked at.
    """
    results_are_meant = own.are_all(inputs)
    seen = Index()
    for name in inputs.images(beside):
        record = ledger.results.get(name)
        if record is None and not results_are_meant and own.is_result(inputs.header(name)):
            beside.others[own.KIND] += 1
            continue
        seen[name] = ""
        if record is None:
            failure = ledger.failures.get(name)
            problem = "has no result" if failure is None else f"failed: {_words(failure.error)}"
            yield Finding(name, "", problem, record=failure)
            continue
        problem = (
            _problem_of_input(inputs.source(name), record)
            or _problem_of_mask(mask, record)
            or _problem_of_result(ledger, record)
        )
        yield Finding(name, record.output, problem, record=record)
    for place, error in beside.unreadable.items():
        yield Finding(place, "", _words(error))
    for name, record in ledger.results.items():
        if name not in seen:
            problem = _problem_of_result(ledger, record)
            yield Finding(name, record.output, problem, is_gone=True, record=record)


def _words(error: object) -> str:
    """What an error says, to go on in a sentence."""
    return str(error).removesuffix(".")


def _problem_of_input(source: Source, record: Record) -> str:
    try:
        state = source.state()
        as_large = state is None or record.input_bytes in (None, state.size)
        same = as_large and source.digest() == record.input_sha256
    except OSError as error:
        return f"can't be read: {atomic.reason(error)}"
    except ResShiftError as error:
        return f"can't be read: {_words(error)}"
    return "" if same else "was changed since its result was made"


def _problem_of_mask(mask: Callable[[str], str | None], record: Record) -> str:
    try:
        found = mask(record.input)
    except (ResShiftError, OSError) as error:
        return f"has no mask any more: {_words(error)}"
    return "" if found in (None, record.mask_sha256) else "has another mask than its result"


def _problem_of_result(ledger: Ledger, record: Record) -> str:
    place, name = ledger.place, record.output
    try:
        if not is_below(name) or place.refusal(name):
            return "has a link, or no file, for a result"
        size = place.size(name)
        if size is None:
            return "has lost its result"
        if size == MISSING:
            return "has a link, or no file, for a result"
        as_large = record.output_bytes in (None, size)
        same = as_large and place.digest(name) == record.output_sha256
    except (OSError, ValueError, ResShiftError) as error:
        return f"has a result that can't be read: {_words(error)}"
    return "" if same else "has a result that was changed since it was made"
