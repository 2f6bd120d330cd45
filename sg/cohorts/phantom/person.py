"""One synthetic person: all that is true of the body, whoever scans it and however.

Everything here is in the patient's own coordinates (LPS, mm, origin where the atlas' origin lies: the carina), and
drawn without knowing the scan. A person scanned twice is the same person.
"""

from __future__ import annotations

from dataclasses import dataclass

from sg.cohorts.phantom import anatomy, findings, vessels
from sg.cohorts.phantom.anatomy import Draw, Patient, Survey
from sg.cohorts.phantom.findings import Findings
from sg.cohorts.phantom.vessels import Trees
from sg.params import ChestPhantoms, LiverPhantoms, PhantomShared


@dataclass(frozen=True)
class Person:
    """A body: its organs' maps, their surfaces on a lattice of the patient, its trees and its findings."""

    patient: Patient
    survey: Survey
    trees: Trees
    findings: Findings
    draw: Draw  # for what is painted later: textures, small structures


def draw_person(draw: Draw, recipe: ChestPhantoms | LiverPhantoms, shared: PhantomShared) -> Person:
    """A person of such a cohort; all chance comes from `draw(purpose)`."""
    patient = anatomy.draw_patient(draw, shared.variants)
    survey = anatomy.survey(patient)
    trees = vessels.draw_lung_trees(patient, survey, draw)
    return Person(
        patient, survey, trees, findings.draw_findings(patient, survey, trees, recipe, shared, draw), draw
    )
