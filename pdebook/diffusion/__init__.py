"""Diffusion models as differential equations: schedules, denoisers and samplers.

| module | holds |
|---|---|
| ``schedules``, ``scalars`` | noise schedules in float64, grids of times; φ functions |
| ``denoiser`` | a network as noise and data prediction: parameterisations, time inputs, guidance, hooks |
| ``affine`` | ``axpby``, the one operation of samplers, and the tracer that reads off a sampler's tableau |
| ``sampling`` | the sampler's signature and checks, the exact exponential step |
| ``multistep``, ``unipc``, ``baselines`` | DPM-Solver++ 2M/3M and its SDE form; UniPC; DDIM and Runge-Kutta |
| ``derivatives`` | derivatives of a denoiser: along the flow, the diagonal of its Jacobian |
| ``exact``, ``reference`` | Gaussian mixtures with their exact denoiser; reference solutions that state their error |
| ``testbeds``, ``digits`` | shared problems; the shipped digit network and classifier |
| ``interpolants`` | paths from one distribution to another, whose signal-to-noise ratio need not be monotone |
| ``model_statistics``, ``statistics_fit`` | empirical statistics of a model, for ``dpm_solver_v3``; how they are fitted |
| ``solver_decisions`` | what a step of a solver schedule may decide, in memory and in files |
| ``solver_space`` | the schedules that are searched, and the moves between them |
| ``solver_search`` | search for a solver's schedule, for ``unified_sampling`` |
| ``arena`` | every sampler of the part against every other |

Papers: ``dpm_solver``, ``deis``, ``pndm``, ``unified_sampling``, ``dpm_solver_v3``.
"""
