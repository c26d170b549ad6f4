"""How `fit` works.

options.py       what may be asked of a fit
centring.py      a problem far from zero is moved there
initial.py       where encoders start
starts.py        several starts, and the best of what they lead to
problem.py       what both ways down speak of
lbfgs.py         L-BFGS on the profiled loss
fisher.py        coordinates in which that loss is nearly round
optax_loop.py    any optax optimiser on the whole loss
carried.py       carried features alone: a closed form
splitting.py     states split in two
progress.py      lines of progress
result.py        the `Fit`
"""
