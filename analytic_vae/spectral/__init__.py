"""The law of a few projections of a feature model; knows no layer.

- `resolution.py`: how fine the grids are
- `projected_law.py`: the joint law of projections: `phi(w) = E exp(i <w, Y>)`
- `characteristic.py`: that function on grids: products over features of sums over atoms
- `box.py`: an interval that holds all but a mass epsilon
- `quadrature.py`: Gauss-Legendre panels that end at kinks
- `fourier.py`: Fourier series on a box: all conventions of frequencies
- `least_squares.py`: functions as exponentials by weighted least squares
- `gauss_rule.py`: a prior of many atoms as the few with the same moments
- `enumeration.py`: a law without noise, value by value
"""
