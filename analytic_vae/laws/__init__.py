"""The law of a few projections of a layer's output: tails, densities, atoms.

- `law.py`: the `Law` that a user gets
- `image.py`: a function of one or two coordinates: exact at atoms and jumps
- `crossings.py`: where that function crosses a level
- `pieces.py`: where it is above it, and where it is flat
- `states.py`: the states of the features that matter most, listed
- `rest.py`: what is left in each: Gaussian, or a series on a box
- `unit_law.py`: the characteristic function of projections that involve few units
- `series.py`: all others: the Fourier series of the density
"""
