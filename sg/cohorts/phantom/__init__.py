"""The embedded cohort: seeded synthetic patients with known truth, written in public data sets' layouts.

`making.make` writes a whole cohort. A person is drawn first, without knowing any scan: `habitus`, `organ_maps` and
`anatomy` (each organ's own way from the atlas: `atlas`, `surfaces`, `skeleton`, sized by `sizing`), `variants`, `trees`
and `vessels`, `findings`. Then how it is scanned: `acquisition` (`grid`, `noise`, `artefacts`). `rendering` has the
painters of `painting` paint the person on the scan's voxels. `layouts` writes it, `truth` and `tables` what is known of
it. `brain` makes MR of heads.
"""
