"""Pictures: functions that draw plain numbers on matplotlib's axes, which is imported when one is drawn.

- `axes.py`: axes to draw on
- `effects.py`: what features of the source do to outputs
"""
