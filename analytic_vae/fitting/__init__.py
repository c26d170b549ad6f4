"""How `fit` works.

- `options.py`: what may be asked of a fit
- `centring.py`: a problem far from zero is moved there
- `problem.py`: source, layer and all that stays while an encoder is learnt
- `guess.py`: the features of the source as the layer sees them
- `encoder_kinds.py`: a table: how each kind of encoder begins
- `awake.py`: a user's own encoders
- `extra.py`: extra features beside carried ones
- `starts.py`: several starts, and the best of what they lead to
- `lbfgs.py`: L-BFGS on the profiled loss
- `fisher.py`: coordinates in which that loss is nearly round
- `optax_loop.py`: any optax optimiser on the whole loss
- `carried.py`: carried features alone: a closed form
- `splitting.py`: states split in two
- `progress.py`: lines of progress
- `result.py`: the `Fit`
"""
