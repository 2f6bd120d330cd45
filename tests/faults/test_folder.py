"""In a folder of good and damaged scans exactly the damaged ones are set aside, each for its own reason."""

import gzip
import os

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from sg.cohorts import index
from sg.params import Cohort, Source, SplitFractions
from tests.dicom_files import write_multiframe, write_series
from tests.scan_files import LIMITS, SHAPE, ct, edit_header, write_itk, write_nifti, write_pair

OBLIQUE = np.array([[0.995, -0.0998, 0], [0.0998, 0.995, 0], [0, 0, 1.0]])


def write_good(root):
    """Good scans of every format, some odd; their patients."""
    write_nifti(root / "a" / "plain.nii", ct(1))
    write_nifti(root / "a" / "compressed.nii.gz", ct(2))
    write_nifti(root / "a" / "float64.nii.gz", ct(3).astype(np.float64))
    write_nifti(root / "a" / "bigendian.nii", ct(4).astype(">i2"))
    write_nifti(root / "a" / "flipped.nii.gz", ct(5), np.diag([4.0, 3.0, 5.0, 1.0]))
    write_nifti(
        root / "a" / "permuted.nii",
        ct(6),
        np.array([[0, 0, 5.0, 0], [4, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 1]]),
    )
    padded = ct(7)
    padded[:, :5] = -3024
    write_itk(root / "b, 2" / "padded.mha", padded, compress=True)
    write_itk(root / "b, 2" / "oblique.mhd", ct(8), direction=np.linalg.qr(OBLIQUE)[0])
    write_itk(root / "b, 2" / "zraw.mhd", ct(9), compress=True)
    write_itk(root / "c" / "d" / "attached.nrrd", ct(10), compress=True)
    write_itk(root / "c" / "d" / "detached.nhdr", ct(11))
    write_pair(root / "c" / "pair.hdr", ct(12))
    write_series(root / "s" / "one", ct(13), series="one", patient="one", shuffle=True)
    write_series(root / "s" / "two", ct(14), series="two", patient="two", transfer_syntax=RLELossless)
    third = {"series": "three", "patient": "three", "transfer_syntax": JPEG2000Lossless}
    for path in write_series(root / "s" / "three", ct(15), shuffle=True, **third):
        path.rename(root / "s" / "two" / f"of three {path.name}")
    slices = write_series(
        root / "s" / "x", ct(16), series="four", patient="four", transfer_syntax=JPEGLSLossless
    )
    (root / "s" / "y").mkdir()
    for path in slices[::2]:
        path.rename(root / "s" / "y" / path.name)
    tilted = np.array([[1, 0, 0], [0, 1, np.sin(0.2)], [0, 0, np.cos(0.2)]])
    write_series(root / "s" / "tilted", ct(17), series="tilted", patient="tilted", direction=tilted)
    write_multiframe(root / "enhanced.dcm", ct(18), series="enhanced", patient="enhanced")
    return {
        "plain", "compressed", "float64", "bigendian", "flipped", "permuted", "padded", "oblique", "zraw", "attached",
        "detached", "pair", "one", "two", "three", "four", "tilted", "enhanced",
    }  # fmt: skip


def second_phase(ds, index):
    """The slices of a later phase, between those of the first."""
    ds.AcquisitionNumber = 2
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{index}"


def another_study(ds, index):
    """One slice of another study, in a series that names no patient."""
    if index == 7:
        ds.StudyInstanceUID = "1.2.3.4"


def write_damaged(root):
    """Damaged and foreign files; the rule of each by the path that it is listed under."""
    whole = write_nifti(root / "x" / "cut.nii.gz", ct(21))
    whole.write_bytes(whole.read_bytes()[:-50])
    bad = write_nifti(root / "x" / "crc.nii.gz", ct(22))
    bad.write_bytes(bad.read_bytes()[:-8] + b"\1\2\3\4" + bad.read_bytes()[-4:])
    zeroed = write_nifti(root / "x" / "zeroed.nii.gz", ct(23))
    content = zeroed.read_bytes()
    zeroed.write_bytes(content[:3000] + bytes(600) + content[3600:])
    short = write_nifti(root / "x" / "short.nii", ct(24))
    short.write_bytes(short.read_bytes()[:-1])
    (root / "x" / "text.nii").write_text(
        "This is no scan, whatever it is called, and it goes on for some lines.\n" * 30
    )
    (root / "x" / "empty.mha").touch()
    write_nifti(root / "x" / "many.nii", np.stack([ct(25), ct(26)]).astype(np.int16))
    write_nifti(root / "x" / "thin.nii", ct(27, shape=(1, 24, 20)))
    write_nifti(root / "x" / "mr.nii.gz", np.abs(ct(28)))
    write_nifti(root / "x" / "flat.nii.gz", np.zeros(SHAPE, np.int16))
    edit_header(write_itk(root / "x" / "lost.mhd", ct(29)), ElementDataFile="gone.raw")
    (root / "x" / "lost.raw").unlink()
    edit_header(write_itk(root / "x" / "leaves.mhd", ct(30)), ElementDataFile="../../out.raw")
    (root / "x" / "leaves.raw").unlink()
    lying = write_itk(root / "x" / "lying.nrrd", ct(31))
    lying.write_bytes(lying.read_bytes().replace(b"sizes: 20 24 18", b"sizes: 20 24 19"))
    (root / "x" / "broken.nii").symlink_to(root / "nowhere.nii")
    (root / "x" / "round").symlink_to(root / "x")
    os.symlink("/etc/hostname", root / "x" / "out.nii")
    (root / "x" / "bell\a.nii").write_bytes(b"x")
    (root / "x" / "same again.nii").write_bytes(
        gzip.decompress((root / "a" / "compressed.nii.gz").read_bytes())
    )
    (root / "x" / "twice.nii").write_bytes((root / "a" / "plain.nii").read_bytes())
    gap = write_series(root / "gap", ct(32), series="gap", patient="gap")
    gap[7].unlink()
    half = write_series(root / "half", ct(33), series="half", patient="half")
    half[3].write_bytes(half[3].read_bytes()[:-100])
    write_series(root / "mr", ct(34), series="mr", patient="mr", modality="MR")
    stream = write_series(
        root / "stream", ct(35), series="stream", patient="stream", transfer_syntax=JPEG2000Lossless
    )
    content = stream[4].read_bytes()
    start = content.index(b"\xff\x4f\xff\x51")  # where a JPEG 2000 codestream begins
    stream[4].write_bytes(content[:start] + bytes(64) + content[start + 64 :])
    write_series(root / "phases" / "a", ct(41)[::2], series="phases", patient="p", spacing_mm=(4, 3, 10),
                 extra=lambda ds, _: setattr(ds, "AcquisitionNumber", 1))  # fmt: skip
    write_series(root / "phases" / "b", ct(42)[::2], series="phases", patient="p", spacing_mm=(4, 3, 10),
                 origin_mm=(-40, -30, 12), extra=second_phase)  # fmt: skip
    write_series(root / "studies", ct(43), series="studies", patient="", extra=another_study)
    named = write_series(root / "named", ct(44), series="named", patient="named")
    (root / "named" / "note.mhd").write_text(
        f"ObjectType = Image\nNDims = 3\nElementDataFile = {named[-1].name}\n"
    )
    for path in write_series(root / "suffix", ct(45), series="suffix", patient="suffix"):
        path.rename(path.with_suffix(".ct"))
    last = max((root / "suffix").iterdir())
    last.write_bytes(bytes(4096) + last.read_bytes()[4096:])
    edit_header(write_itk(root / "x" / "far.mhd", ct(46)), HeaderSize="1e300")
    write_itk(root / "x" / "stale.mhd", ct(47), compress=True)
    (root / "x" / "stale.raw").write_bytes(b"voxels of an earlier day")
    foreign = write_series(root / "foreign", ct(36), series="foreign", patient="foreign")
    foreign[9].write_bytes(b"")
    return {
        "x/cut.nii.gz": "truncated", "x/crc.nii.gz": "checksum", "x/zeroed.nii.gz": "damaged|checksum",
        "x/short.nii": "truncated", "x/text.nii": "format", "x/empty.mha": "empty", "x/many.nii": "format",
        "x/thin.nii": "too-small", "x/mr.nii.gz": "not-ct", "x/flat.nii.gz": "constant",
        "x/lost.mhd": "missing-data-file", "x/leaves.mhd": "outside-folder", "x/lying.nrrd": "truncated",
        "x/broken.nii": "missing-data-file|unreadable", "x/round": "link", "x/out.nii": "outside-folder",
        "x/bell\\x07.nii": "name", "x/twice.nii": "duplicate", "gap": "slices", "half": "truncated", "mr": "not-ct",
        "phases": "slices", "studies": "slices", "named/note.mhd": "header|format", "suffix": "slices",
        f"suffix/{last.name}": "format", "x/far.mhd": "header", "x/stale.raw": "format", "stream": "damaged",
        "foreign": "slices", "foreign/" + foreign[9].name: "empty",
    }  # fmt: skip


@pytest.mark.parametrize("workers", [2])
def test_exactly_the_damaged_scans_of_a_folder_are_set_aside(tmp_path, workers):
    root = tmp_path / "raw"
    patients, rules = write_good(root), write_damaged(root)
    source = Source(layout="folder", path=".", use=["pretrain"], leave_out=None, patients=None)
    made = index.build(
        Cohort(
            raw=str(root),
            sources={"own": source},
            limits=LIMITS,
            twin_correlation=0.99,
            splits=SplitFractions(train=0.6, validation=0.2, test=0.2),
        ),
        1,
        workers,
    )
    found = {row.path: row.rule for row in made.quarantine}
    assert found.keys() == rules.keys()
    for path, rule in found.items():
        assert rule in rules[path].split("|"), path
    assert all(row.reason.endswith(".") for row in made.quarantine)
    # The same voxels once plain and once compressed are twins, not the same file: both stay, as one patient
    assert {row.patient for row in made.scans} == patients | {"named", "stale"}
    assert {row.path for row in made.scans} >= {"x/same again.nii", "a/compressed.nii.gz"}
    assert [(twin.by, twin.patient) for twin in made.twins] == [("voxels", "compressed")]
