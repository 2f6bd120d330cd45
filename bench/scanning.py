"""Saying of 200 files what they are: `sg scan FOLDER --json` against a loop that only reads them with SimpleITK.

    python -m bench.scanning

Both are whole processes, started in turn three times; each line is the median. Memory is measured in a run of its
own: proportional set size (PSS), in which a page that two processes share counts once, summed over the command and
all its processes, and resident size (RSS) of the largest. The last line is SimpleITK's time over ours.

The scans are CT-like (body, lungs, texture and noise, so that they compress as scans do), mostly 256 x 256 x 60
voxels, 1.7 GB decoded; one is 512 x 512 x 300. It takes about 1.3 GB of the temporary folder, and removes them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.ndimage import gaussian_filter, zoom

ROOT = Path(__file__).resolve().parent.parent
SIZE = (60, 256, 256)  # z, y, x
LARGEST = (300, 512, 512)
FILES = {".nii.gz": 95, ".nii": 30, ".mha": 35, ".nrrd": 29, "": 10}  # "" is a DICOM series, a folder
SPACING_MM = (1.4, 1.4, 5.0)  # x, y, z
ROUNDS = 3
SAMPLE_SECONDS = 0.02

SG = "import sys; from sg.cli import main; sys.argv[0] = 'sg'; main()"
SIMPLEITK = """
import sys
from pathlib import Path
import SimpleITK as sitk
for path in sorted(Path(sys.argv[1]).iterdir()):
    if path.is_dir():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        reader.Execute()
    else:
        sitk.ReadImage(str(path))
"""


@dataclass(frozen=True)
class Peak:
    """The most memory that a command took, MB."""

    pss: float  # of all its processes
    rss: float  # of the largest


def picture(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    """HU (z, y, x), int16, of a body with two lungs, smooth texture and noise of 20 HU."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[tuple(slice(-1, 1, complex(n)) for n in shape)]
    side = 1 + 0.1 * rng.random()
    body = (x / 0.85) ** 2 + (y / 0.62 * side) ** 2 < 1
    lungs = ((np.abs(x) - 0.38) / 0.26) ** 2 + (y / 0.42) ** 2 + (z / (1.1 * side)) ** 2 < 1
    coarse = gaussian_filter(rng.standard_normal([-(-n // 8) for n in shape]), 1).astype(np.float32)
    factors = [n / m for n, m in zip(shape, coarse.shape, strict=True)]
    values = zoom(coarse, factors, order=1) * np.float32(150)
    values += np.where(body, np.where(lungs, np.float32(-850), np.float32(40)), np.float32(-1000))
    values += 20 * rng.standard_normal(shape, dtype=np.float32)
    return np.clip(values, -1024, 3071).astype(np.int16)


def make(folder: Path, job: tuple[int, str, tuple[int, int, int]]) -> None:
    """Write one scan: its number, its suffix and its shape."""
    number, suffix, shape = job
    path = folder / f"{number:03d}{suffix}"
    if not suffix:
        make_series(path, picture(number, shape))
        return
    image = sitk.GetImageFromArray(picture(number, shape))
    image.SetSpacing(SPACING_MM)
    sitk.WriteImage(image, str(path), useCompression=suffix not in (".nii", ".nii.gz"))


def make_series(folder: Path, array: np.ndarray) -> None:
    """Write an array (z, y, x) as a DICOM series, a file a slice, as scanners store them."""
    folder.mkdir()
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for number, plane in enumerate(array):
        file = pydicom.Dataset()
        file.file_meta = pydicom.dataset.FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = CTImageStorage
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
        file.StudyInstanceUID, file.SeriesInstanceUID, file.FrameOfReferenceUID = study, series, frame
        file.PatientID, file.Modality, file.ImageType = folder.name, "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        file.InstanceNumber = number + 1
        file.ImagePositionPatient = [0, 0, SPACING_MM[2] * number]
        file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        file.PixelSpacing, file.SliceThickness = list(SPACING_MM[1::-1]), SPACING_MM[2]
        file.RescaleSlope, file.RescaleIntercept = 1, -1024
        file.Rows, file.Columns = plane.shape
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
        file.PixelData = (plane + 1024).astype("<u2").tobytes()
        file.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)


def make_all(folder: Path) -> None:
    """Write all scans into a folder, the largest first."""
    jobs = [(0, ".nii.gz", LARGEST)]
    for suffix, count in FILES.items():
        jobs += [(len(jobs) + n, suffix, SIZE) for n in range(count)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(partial(make, folder), jobs))


def seconds(command: Sequence[str]) -> float:
    """How long a whole process takes."""
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def peak(command: Sequence[str]) -> Peak:
    """The most memory that a command and all that it starts take, looked at every few hundredths of a second."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    most = Peak(0, 0)
    while process.poll() is None:
        taken = [memory(number) for number in of_session(process.pid)]
        most = Peak(
            max(most.pss, sum(pss for pss, _ in taken)),
            max(most.rss, max(rss for _, rss in [*taken, (0, 0)])),
        )
        time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return most


def of_session(session: int) -> list[int]:
    """The processes of a session: a command that was started as one, and all that it started."""
    numbers = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    found = []
    for number in numbers:
        try:
            if os.getsid(number) == session:
                found.append(number)
        except ProcessLookupError:
            continue  # it has ended since it was listed
    return found


def memory(number: int) -> tuple[float, float]:
    """PSS and RSS of a process in MB; 0 of one that has ended."""
    try:
        lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    values = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
    return tuple(float(values.get(name, 0)) * 1024 / 1e6 for name in ("Pss", "Rss"))


def main() -> None:
    """Make the scans, time both, measure both, and print the ratio."""
    with tempfile.TemporaryDirectory(prefix="sg-bench-") as name:
        folder, small = Path(name) / "scans", Path(name) / "small"
        folder.mkdir()
        small.mkdir()
        make_all(folder)
        make(small, (1, ".nii.gz", (16, 64, 64)))
        ours = [sys.executable, "-c", SG, "scan", str(folder), "--json"]
        theirs = [sys.executable, "-c", SIMPLEITK, str(folder)]

        said = json.loads(subprocess.run(ours, cwd=ROOT, check=True, capture_output=True).stdout)
        assert len(said) == 1 + sum(FILES.values())
        decoded = [scan["bytes"] for scan in said]
        print(
            f"{len(said)} scans of {sum(decoded) / 1e9:.2f} GB decoded, the largest {max(decoded) / 1e6:.0f} MB, "
            f"{len(os.sched_getaffinity(0))} cores"
        )

        times: dict[str, list[float]] = {"SimpleITK": [], "sg scan": []}
        for _ in range(ROUNDS):
            times["SimpleITK"].append(seconds(theirs))
            times["sg scan"].append(seconds(ours))
        for side, taken in times.items():
            print(f"{side}: {median(taken):.2f} s ({', '.join(f'{value:.2f}' for value in taken)})")

        full, alone = peak(ours), peak([*ours[:-2], str(small), "--json"])
        reading = peak(theirs)
        print(f"SimpleITK: {reading.pss:.0f} MB at most")
        print(
            f"sg scan: {full.pss:.0f} MB at most in all processes ({full.rss:.0f} MB in the largest); on one tiny scan "
            f"{alone.pss:.0f} MB, so {full.pss - alone.pss:.0f} MB more for the scans; twice the largest scan is "
            f"{2 * max(decoded) / 1e6:.0f} MB"
        )
        print(f"ratio {median(times['SimpleITK']) / median(times['sg scan']):.2f}")


if __name__ == "__main__":
    main()
