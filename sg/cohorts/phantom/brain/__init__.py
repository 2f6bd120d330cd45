"""Synthetic heads in MR: brains of four contrasts, with gliomas, as the BraTS data sets show them.

From the bottom up: `loops` (compiled), `anatomy` (the average brain, and how one head differs from it), `tumour` (gliomas:
sizes, sites, what they push, how they grow), `contrasts` (relaxation, sequences, measurement), `rendering` (one scan),
`truth`.
"""
