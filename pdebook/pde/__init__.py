"""Partial differential equations on uniform grids: batched, differentiable, on any device; the data generator of every chapter.

A field is a tensor (batch, channel, *grid), one to three axes of the grid.

| module | holds |
|---|---|
| ``grid`` | uniform boxes: spacing, coordinates of cells, faces and nodes |
| ``boundary`` | what stands beyond the walls: ghost cells of periodic, fixed, free, reflecting and open sides |
| ``fields``, ``spectra`` | Gaussian random fields of a given spectrum between any walls, series, solenoidal velocities |
| ``media`` | blobs, media of several phases |
| ``starts``, ``starts_1d``, ``flow_starts`` | the initial states and coefficients of PDEBench; in one dimension; of flows in more |
| ``poseidon_starts``, ``draws`` | the initial states of Poseidon; the random numbers of a seed, purpose and sample |
| ``file_layouts``, ``file_stores`` | the benchmarks' files: layouts as data; open files of any kind |
| ``files``, ``file_writer`` | lazy reading; atomic and resumable writing |
| ``elliptic`` | Poisson's equation by fast transforms, -∇·(a ∇u) + c u = f by preconditioned CG |
| ``obstacles`` | the pressure equation around obstacles and below a free surface |
| ``darcy`` | Darcy's flow, steady and as PDEBench stores it; implicit diffusion in time |
| ``interpolation`` | between points along an axis, limited or learned, and anywhere for paths |
| ``staggered`` | grids with velocities on faces: differences, walls, projection, implicit diffusion, paths |
| ``mac``, ``forces`` | incompressible flow on them: transport, steps, rollouts; Kolmogorov's force, buoyancy, restriction |
| ``sorption`` | diffusion with sorption, implicit |
| ``spectral`` | Fourier basis of a periodic grid: derivatives, Poisson's equation, divergence-free fields, dealiasing |
| ``etd``, ``imex`` | exponential and implicit-explicit methods as functions of the linear part |
| ``equation``, ``semilinear`` | what a semilinear equation is; the stepper that all share: rollouts, gradients, failures |
| ``failure`` | what a rollout raises that went wrong |
| ``equations``, ``navier_stokes`` | semilinear equations, from advection to Gray-Scott; incompressible flow in 2D and 3D |
| ``exact`` | smooth exact and manufactured solutions |
| ``finite_volume``, ``marching`` | the finite-volume method for conservation laws; steps in time, each sample its own |
| ``laws``, ``fluids`` | scalar laws; shallow water, compressible Euler and Navier-Stokes equations |
| ``reconstruction``, ``fluxes`` | limiters, MUSCL, WENO5-Z; Godunov, Rusanov, HLL, HLLC, Roe |
| ``admissible`` | what a finite-volume method may be made of and be given |
| ``positivity``, ``legendre`` | fluxes that keep density and pressure positive; explicit steps that reach far in diffusion |
| ``riemann`` | exact Riemann solutions of gases and shallow water; PDEBench's shock tubes |
"""
