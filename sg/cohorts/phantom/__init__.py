"""The embedded cohort: seeded synthetic chest CTs with known truth, written in public data sets' layouts.

`making.make` writes a whole cohort. From the bottom up: `fields` (lattices, smooth noise, distances), `anatomy`
(the atlas, and how one patient differs from it), `vessels` (branching trees), `findings` (nodules, lesions,
look-alikes), `acquisition` (grid, noise, orientation), `rendering` (the scan and its labels), `truth` (the atlas
position on a coarse grid), `layouts` (LUNA16, Decathlon).
"""
