"""Partial differential equations on uniform grids: batched, differentiable, on any device; the data generator of every chapter.

A field is a tensor (batch, channel, *grid), one to three axes of the grid.

| module | holds |
|---|---|
| ``grid`` | uniform boxes: spacing, coordinates of cells, faces and nodes |
| ``boundary`` | what stands beyond the walls: ghost cells of periodic, fixed, free, reflecting and open sides |
| ``fields`` | Gaussian random fields of a given spectrum between any walls, series, solenoidal velocities, blobs, media |
| ``starts``, ``poseidon_starts`` | the initial states of PDEBench and of Poseidon, seeded per sample |
| ``file_layouts``, ``files``, ``file_writer`` | the benchmarks' files: layouts as data, lazy reading, atomic and resumable writing |
"""
