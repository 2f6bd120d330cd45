"""Testing 200 positions of one scan for tissue: the published loop over voxels against the running sums of sg.

    python -m bench.tissue_test [--quick]

The scan is CT-like, 300 x 300 x 300, and the positions are drawn where the published rule draws them, 100 voxels from
the sides and 30 from the ends. The loop is timed on every tenth position and scaled up. Ours is what the stage calls:
one pass over all of the scan that lies inside this border, thresholding included, which answers for every position
there is, and a look-up for each of the 200; its loops are compiled before. The same pass without a border, over every
voxel, is timed beside it. Both sides' mean tissue scores must be equal. The last line is the loop's time over ours with
the published border. --quick takes 20 positions, a round each.
"""

from __future__ import annotations

import argparse
from statistics import median

import numpy as np

from bench.scanning import picture
from bench.timing import in_turn, line
from sg.admissible import Zyx, admissible_in
from sg.params import TissueRule

SHAPE: Zyx = (300, 300, 300)
SIZE: Zyx = (32, 64, 64)
BORDER: Zyx = (30, 100, 100)
LOOK = 3  # slices that a voxel's test looks at
HU = (-1000, 1000)
TISSUE_HU = -150
POSITIONS = 200
SHARE = 10  # one position of so many is timed on the published side
ROUNDS = 5


def published_score(volume: np.ndarray, corner: Zyx) -> float:
    """Mean tissue score of the patch at a corner, voxel by voxel, as published; the volume is float64 in [0, 1]."""
    threshold = (TISSUE_HU - HU[0]) / (HU[1] - HU[0])
    box = volume[tuple(slice(c, c + s) for c, s in zip(corner, (SIZE[0] + LOOK, *SIZE[1:]), strict=True))]
    found, slices = np.zeros(SIZE), np.full(SIZE, LOOK - 1.0)
    for z in range(SIZE[0]):
        for y in range(SIZE[1]):
            for x in range(SIZE[2]):
                for ahead in range(LOOK):
                    value = box[z + ahead, y, x]
                    if value >= threshold:
                        # The published loop keeps the value too, though only the slice is used.
                        found[z, y, x], slices[z, y, x] = value, ahead
                        break
    return float(np.mean(1 - slices / (LOOK - 1)))


def our_scores(image: np.ndarray, corners: list[Zyx], border: Zyx) -> list[float]:
    """The same of all corners, from one pass over all of the image that is inside a border."""
    rule = TissueRule(border=border, tissue_hu=TISSUE_HU, tissue_min=0, tissue_max=0.15)
    places = admissible_in(image, SIZE, rule)
    return [places.share_at(corner) for corner in corners]


def main() -> None:
    """Compare the scores of both sides, time them, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 positions, a round each")
    quick = parser.parse_args().quick

    image = np.clip(picture(0, SHAPE), *HU)
    volume = (image.astype(np.float64) - HU[0]) / (HU[1] - HU[0])
    rng = np.random.default_rng(0)
    high = [side - part - border for side, part, border in zip(SHAPE, SIZE, BORDER, strict=True)]
    # The published loop needs the slices behind the patch.
    high[0] -= LOOK
    drawn = rng.integers(BORDER, high, (20 if quick else POSITIONS, 3), endpoint=True)
    corners = [tuple(corner) for corner in drawn.tolist()]
    some = corners[::SHARE]

    theirs = [published_score(volume, corner) for corner in some]
    for border in ((0, 0, 0), BORDER):
        np.testing.assert_array_equal(our_scores(image, some, border), theirs)
    accepted = sum(score <= 0.15 for score in our_scores(image, corners, BORDER))
    print(
        f"scan of {' x '.join(map(str, SHAPE))} voxels, {len(corners)} positions, {accepted} of them accepted"
    )
    print(f"scores of {len(some)} positions, {min(theirs):.3f} to {max(theirs):.3f}, are equal on both sides")

    sides = {
        "published": lambda: [published_score(volume, corner) for corner in some],
        "sg": lambda: our_scores(image, corners, BORDER),
        "sg without a border": lambda: our_scores(image, corners, (0, 0, 0)),
    }
    taken = in_turn(sides, 1 if quick else ROUNDS)
    scale = len(corners) / len(some)
    print(
        f"{line('published', taken['published'], scale)}, timed on {len(some)} positions, {scale:g} times that"
    )
    for name in ("sg", "sg without a border"):
        print(line(name, taken[name]))
    inside, whole = (
        scale * median(taken["published"]) / median(taken[name]) for name in ("sg", "sg without a border")
    )
    print(f"without a border: {whole:.0f} times as fast")
    print(f"ratio {inside:.0f}")


if __name__ == "__main__":
    main()
