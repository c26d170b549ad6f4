"""Files: nothing in them is executed, and each is written whole or not at all.

- `arrays.py`: arrays from .npz, .npy and .safetensors
- `tables.py`: tables from .csv
- `network_files.py`: networks
- `source_files.py`: feature models and data
- `checkpoint.py`: models, encoders and fits
- `run_folder.py`: the folder of a run, and (fingerprint.py) what its numbers depend on
- `atomic.py`: writing
"""
