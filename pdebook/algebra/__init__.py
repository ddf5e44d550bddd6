"""Algebraic equations: linear systems known by their products, nonlinear systems, least squares; a batch at a time.

| module | holds |
|---|---|
| ``results`` | what a solver hands back: solution, history, status of each sample |
| ``operators`` | matrix-free linear operators: sums, products, adjoints, Jacobians |
| ``krylov`` | GMRES |
| ``conjugate_gradient`` | conjugate gradients: preconditioned, flexible |
| ``multigrid`` | diffusion on boxes, cell by cell: the operator, its coarsening, the cycle |
| ``box_solve`` | solutions of such systems, with gradients of any order |
| ``transforms`` | sine and cosine transforms, separable Laplacians |
| ``structured`` | tridiagonal, Toeplitz, circulant and Kronecker matrices |
| ``nonlinear`` | fixed points (Picard, Anderson, Broyden), Newton |
| ``implicit`` | gradients through their solutions |
| ``least_squares`` | Levenberg and Marquardt's method, Jacobians point by point |
"""
