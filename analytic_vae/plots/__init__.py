"""Pictures: plain numbers drawn on matplotlib's axes. Nothing here knows what a law or a fit is.

- `axes.py`: matplotlib, imported when it is needed; new axes, or those that a user gave
- `style.py`: colours and words that all pictures share
- `laws.py`: density, atoms, tails; joint laws of two
- `losses.py`: the loss of every step, terms, rates
- `features.py`: what features there are, their atoms and directions
- `effects.py`: what features of the source do to outputs
- `deviations.py`: what was learnt beside samples
"""
