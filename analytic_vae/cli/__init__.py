"""The command line: `python -m analytic_vae`.

- `commands.py`: `learn` and `show`
- `report.py`: the numbers of a report, and its files
- `tables.py`: short and long tables
- `figures.py`: pictures
- `progress_bar.py`: what one sees meanwhile
- `page.py`: one HTML file of all that
- `digits.py`: the main job's data and network
"""
