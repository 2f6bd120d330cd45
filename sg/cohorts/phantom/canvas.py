"""The volume that a phantom is painted on, and the names of what it shows."""

from __future__ import annotations

import numpy as np

from sg.cohorts.phantom.fields import Lattice, interpolated

LABELS = (
    "background", "fat", "muscle", "mediastinum", "lung_right_upper", "lung_right_middle", "lung_right_lower",
    "lung_left_upper", "lung_left_lower", "heart", "chambers", "aorta", "pulmonary_artery", "pulmonary_veins",
    "great_vessels", "trachea", "bronchi", "esophagus", "lung_vessels", "lymph_nodes", "spine", "ribs", "cartilage",
    "sternum", "clavicles", "scapulae", "arms", "diaphragm", "liver", "liver_vessels", "gall_bladder", "spleen",
    "stomach", "kidneys", "bowel", "effusion", "emphysema", "scar", "nodule", "liver_lesion",
)  # fmt: skip
# The map of the patient (`Patient.maps`) that says a label's position in the atlas. What is not here is a patient's own,
# and has no counterpart: fat, small vessels and airways, bowel, findings, variants, and the diaphragm, which stands where
# a breath has put it. `pulmonary_veins` are all vessels that move with the heart, the lower cava's upper end too.
COUNTERPARTS = {
    "muscle": "body", "mediastinum": "body", "lung_right_upper": "lung_right", "lung_right_middle": "lung_right",
    "lung_right_lower": "lung_right", "lung_left_upper": "lung_left", "lung_left_lower": "lung_left", "heart": "heart",
    "chambers": "heart", "aorta": "aorta", "pulmonary_artery": "heart", "pulmonary_veins": "heart",
    "great_vessels": "aorta", "trachea": "trachea", "esophagus": "esophagus", "spine": "spine", "ribs": "cage",
    "cartilage": "cage", "sternum": "sternum", "clavicles": "cage", "scapulae": "cage", "liver": "liver",
    "gall_bladder": "gall_bladder", "spleen": "spleen", "stomach": "stomach", "kidneys": "kidneys",
}  # fmt: skip
LABEL = {name: value for value, name in enumerate(LABELS)}

WHOLE = (slice(None), slice(None), slice(None))


class Canvas:
    """A volume being painted, organ over organ, with soft edges one voxel wide."""

    def __init__(self, lattice: Lattice, coarse: Lattice) -> None:
        self.lattice, self.coarse = lattice, coarse
        self.voxel_mm = np.float32(np.mean(lattice.spacing_mm))
        self.hu = np.full(lattice.shape, -1000, np.float32)
        self.labels = np.zeros(lattice.shape, np.uint8)

    def finer(self, field: np.ndarray, region: tuple[slice, slice, slice]) -> np.ndarray:
        """A field of the coarse lattice at the voxels of a region."""
        return interpolated(field, self.coarse, self.lattice.box(region))

    def region_of(self, distance: np.ndarray, margin_mm: float = 4.0) -> tuple[slice, slice, slice] | None:
        """The box of voxels around where a distance on the coarse lattice is under the margin."""
        near = distance < margin_mm
        low, high = [], []
        for axis, nodes in enumerate(self.coarse.axes):
            index = np.flatnonzero(near.any(axis=tuple(a for a in range(3) if a != axis)))
            if len(index) == 0:
                return None
            low.append(nodes[max(index[0] - 1, 0)])
            high.append(nodes[min(index[-1] + 1, len(nodes) - 1)])
        return self.lattice.region(np.array(low[::-1]), np.array(high[::-1]))

    def paint(self, distance: np.ndarray, hu: float | np.ndarray, label: str) -> None:
        """Paint a shape given on the coarse lattice; `hu` may be a field there too."""
        region = self.region_of(distance)
        if region is not None:
            if isinstance(hu, np.ndarray):
                hu = self.finer(hu, region)
            self.paint_region(region, self.finer(distance, region), hu, label)

    def paint_region(
        self, region: tuple, distance: np.ndarray, hu: float | np.ndarray, label: str | None
    ) -> None:
        """Paint a shape given on the voxels of a region; without a label it leaves the labels."""
        share = np.clip(np.float32(0.5) - distance / self.voxel_mm, 0, 1)
        self.blend(region, share, hu)
        if label is not None:
            self.labels[region][distance < 0] = LABEL[label]

    def blend(self, region: tuple, share: np.ndarray, hu: float | np.ndarray) -> None:
        """Mix `hu` in with the given share of each voxel."""
        part = self.hu[region]
        part += share * (np.asarray(hu, np.float32) - part)
