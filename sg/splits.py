"""The one place that decides train, validation and test.

A patient's split is, in this order: the data set's own; that of the same series, content or patient in another
source; else by a keyed hash of the patient against the given fractions, so that adding patients moves nobody (but
out of a split that was filled only because it would have been empty). All scans that share a patient, a series or
their content have one split; so have twins, which are given one patient's name before (sg/cohorts/index.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sg import randomness
from sg.errors import InputError
from sg.params import SplitFractions

# In the order in which a study needs them. Where sources contradict each other the later one, the stricter, wins
SPLITS = ("train", "validation", "test")
PATIENTS_MIN = 2


@dataclass(frozen=True)
class Claim:
    """What one listed scan says about its patient's split."""

    patient: str
    same: frozenset[str]  # series UID and content hash: scans that share one show the same patient
    own: str | None  # the data set's own split
    uses: tuple[str, ...]  # pretrain and tasks that it serves; none if it cannot be used


@dataclass(frozen=True)
class Splits:
    """The decision: every patient's split, and sentences on what was out of the ordinary."""

    of: Mapping[str, str]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass
class _Person:
    """Patients that are one: linked by a series or content."""

    names: tuple[str, ...]
    own: frozenset[str]
    uses: frozenset[str]
    place: float  # the keyed hash, in [0, 1)
    split: str = ""

    @property
    def given_up(self) -> int:
        """How much is given up by taking this person out of its split: nothing, or a data set's own decision."""
        return 1 + SPLITS.index(self.split) if self.own else 0


def needed(use: str) -> tuple[str, ...]:
    """The splits that a use cannot do without: pre-training is not tested."""
    return SPLITS[:2] if use == "pretrain" else SPLITS


def decide(claims: Sequence[Claim], fractions: SplitFractions, seed: int) -> Splits:
    """Decide the split of every patient named in the claims.

    A split that is needed and would be empty takes the patients with the smallest hash, those without a split of
    their own first, and a note says so. InputError if a use cannot have both training and validation patients.
    """
    people = _people(claims, seed)
    notes, warnings = [], []
    for person in people:
        person.split = (
            max(person.own, key=SPLITS.index) if person.own else _by_fraction(person.place, fractions)
        )
        if len(person.own) > 1:
            notes.append(
                f"{person.names[0]} is in {' and '.join(sorted(person.own, key=SPLITS.index))} of different sources; "
                f"it is kept for {person.split}"
            )
    uses = sorted({use for person in people for use in person.uses}, key=lambda use: (use != "pretrain", use))
    serving = {use: [person for person in people if use in person.uses] for use in uses}
    for use in uses:
        if len(serving[use]) < PATIENTS_MIN:
            raise _too_few(use, len(serving[use]))
    for _ in range(2):  # what fills one use may empty a less important split of another
        for use in uses:
            for split in needed(use):
                _fill(split, use, serving, fractions, notes, warnings)
    for use in uses:
        for split in needed(use):
            if _count(split, serving[use]) == 0:
                if split != "test":
                    raise _too_few(use, len(serving[use]))
                warnings.append(
                    f"{use} has no patient for test, so nothing can be scored: it has too few patients"
                )
    split_of = {name: person.split for person in people for name in person.names}
    return Splits(dict(sorted(split_of.items())), tuple(notes), tuple(warnings))


def place(seed: int, patient: str) -> float:
    """Where a patient's name falls in [0, 1): its keyed hash."""
    state = randomness.sequence(seed, "cohort", patient, "split").generate_state(1, dtype="uint64")[0]
    return int(state) / 2**64


def _by_fraction(where: float, fractions: SplitFractions) -> str:
    if where < fractions.train:
        return "train"
    return "validation" if where < fractions.train + fractions.validation or not fractions.test else "test"


def _people(claims: Sequence[Claim], seed: int) -> list[_Person]:
    """Groups of claims that are about one person, sorted by name."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for claim in claims:
        for key in sorted(claim.same):
            parent[root(f"same {key}")] = root(f"patient {claim.patient}")
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(root(f"patient {claim.patient}"), []).append(claim)
    people = []
    for group in groups.values():
        names = tuple(sorted({claim.patient for claim in group}))
        own = frozenset(claim.own for claim in group if claim.own is not None)
        uses = frozenset(use for claim in group for use in claim.uses)
        people.append(_Person(names, own, uses, place(seed, names[0])))
    return sorted(people, key=lambda person: person.names)


def _too_few(use: str, patients: int) -> InputError:
    return InputError(
        f"cohort.sources: {use} needs usable scans of at least {PATIENTS_MIN} patients, to train and to validate, got "
        f"{patients}; add scans, or, if files of several patients have one name, say whose they are in a CSV file (the "
        "source's `patients`)"
    )


def _count(split: str, people: Iterable[_Person]) -> int:
    return sum(person.split == split for person in people)


def _fill(
    split: str,
    use: str,
    serving: Mapping[str, Sequence[_Person]],
    fractions: SplitFractions,
    notes: list[str],
    warnings: list[str],
) -> None:
    """Move the patients with the smallest hash into a split that a use needs, if it has none there."""
    if _count(split, serving[use]) > 0:
        return
    taken = []
    for _ in range(max(1, round(getattr(fractions, split) * len(serving[use])))):
        costs = {id(person): _cost(person, split, serving) for person in serving[use]}
        free = [person for person in serving[use] if costs[id(person)] is not None]
        if not free:
            break
        person = min(free, key=lambda candidate: (costs[id(candidate)], candidate.place, candidate.names))
        taken.append((person, person.split))
        person.split = split
    if not taken:
        return
    sentence = (
        f"no patient of {use} was in {split}, so it takes those with the smallest hash: "
        f"{_listed(f'{person.names[0]} (from {old})' for person, old in taken)}"
    )
    if any(person.own for person, _ in taken):
        warnings.append(f"{sentence}; this departs from the data set's own split")
    else:
        notes.append(sentence)


def _cost(person: _Person, split: str, serving: Mapping[str, Sequence[_Person]]) -> tuple[bool, int] | None:
    """What it costs to move a person into `split`: whether that empties a split, and what is given up; None: too much.

    Of few patients, those to train with come first, then those to validate with, then those to test on.
    """
    if person.split == split:
        return None
    emptied = any(
        person.split in needed(use) and _count(person.split, serving[use]) == 1 for use in person.uses
    )
    if emptied and SPLITS.index(person.split) < SPLITS.index(split):
        return None
    return emptied, person.given_up


def _listed(items: Iterable[str], most: int = 10) -> str:
    def shown() -> Iterator[str]:
        yield from listed[:most]
        if len(listed) > most:
            yield f"and {len(listed) - most} more"

    listed = list(items)
    return ", ".join(shown())
