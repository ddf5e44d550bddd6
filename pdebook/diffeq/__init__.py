"""Differential equations on batches: one engine for ordinary, controlled and stochastic ones, with gradients.

| module | holds |
|---|---|
| ``solve`` | ``solve``: one call for every term, solver, controller and adjoint; what is saved; what comes back |
| ``terms`` | ordinary, controlled, stochastic and second-order equations |
| ``butcher``, ``tableaus`` | what a Runge-Kutta method is, with its order conditions checked; the methods as data |
| ``runge_kutta``, ``implicit`` | the engine for explicit methods; diagonally implicit ones for stiff equations |
| ``symplectic``, ``reversible``, ``stochastic`` | leapfrog; reversible Heun; methods for stochastic equations |
| ``controllers`` | fixed grids; PID control of the error, each trajectory with its own step |
| ``adjoints``, ``backsolve`` | gradients: through the steps, with checkpoints; by a backward solve; by reversal: ``reversible`` |
| ``recorders``, ``single_step`` | error, stiffness, snapshots and work of each step; one step by itself |
| ``events`` | stopping where a function of the state is zero |
| ``brownian`` | Brownian motion as a function of a seed |
| ``paths``, ``signatures`` | controls from irregular data; log-signatures |
| ``compat`` | ``odeint`` and ``sdeint`` with the arguments of torchdiffeq and torchsde |
| ``forecasts`` | series from their first states, their loss, growing horizons |
| ``neural_sdes`` | stochastic equations as generators, with a controlled equation as critic; latent ones |
| ``neural_examples`` | data, batches and makers of the shipped networks |

Papers: ``neural_differential_equations``.
"""
