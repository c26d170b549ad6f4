"""The same numbers with proofs: grids of their own, and a bound of every error.

Every inequality is in `docs/bounds.md`, numbered: `B12` in a comment or docstring is item B12 there. It says of each
constant whether it is proved, an assumption (of roundings alone), or a choice that no proof depends on.

- `ball.py`: a number and how wrong it may be
- `functions.py`: what can be certified: analytic, or continuous and linear between kinks
- `tail_mass.py`: mass beyond a place
- `domain.py`: one axis: its box, its window, how fast coefficients fall
- `factor.py`: one function of one axis
- `product.py`: two functions of two axes
- `activation_moments.py`: moments of an activation of one projection
- `units.py`: the units of a layer: alone, in pairs, with features
- `output_moments.py`: mean and covariance of projections of the output
- `output_terms.py`: the output as the loss sees it
- `ridge_function.py`: how a layer bends along its one direction
- `phase_series.py`: waves along it, and (phase_tail.py) what their series miss
- `joint_law.py`: the characteristic function of statistics of the output
- `box_series.py`: expectations of functions of them
- `encoder_functions.py`: the functions that a loss needs
- `pairs.py`: second moments of two features
- `learnt.py`, `learnt_terms.py`, `learnt_pairs.py`: learnt features in the loss
- `carried_terms.py`: carried features in the loss
- `terms.py`: names of the terms
- `loss.py`: all of it
"""
