"""The command line: `python -m analytic_vae`.

- `commands.py`: `learn` and `show`
- `report.py`: tables
- `figures.py`: pictures
- `progress_bar.py`: what one sees meanwhile
- `digits.py`: the main job's data and network
"""
