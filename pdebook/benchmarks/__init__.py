"""Benchmarks for learned solvers: data sets that can be made anew, tasks, baselines, and measures that look at physics.

| module | holds |
|---|---|
| ``tasks`` | forward and inverse tasks on any trajectories, in memory or in files; reports and their table; trivial baselines |
| ``problems`` | PDEBench's eleven problems: start and solver, as released or as stated |
| ``data_sets`` | the data sets of PDEBench by name |
| ``pdebench`` | these data, made in memory or streamed into files of their layout |
| ``baselines`` | FNO and U-Net as in PDEBench, and the ways of training them for a rollout |
| ``inversion`` | the start of a trajectory from its end, by gradients through a solver or a surrogate |
| ``pinn`` | physics-informed networks for systems, with the residuals kept apart or summed |
| ``pinn_examples`` | the chapter's networks of that kind, one for each start and problem, without data |

Papers: ``pdebench`` (Takamoto et al. 2022).
"""
