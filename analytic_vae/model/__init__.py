"""What a user writes down: features, layers, networks, encoders.

- `prior.py`: independent discrete features: atoms and masses
- `feature_model.py`: `mean + B z + noise`: the source and the target of a layer
- `host.py`: the numbers of a model in NumPy, for decisions
- `columns.py`: tables of data, and what is wrong with their columns
- `from_data.py`: a feature model from data: FastICA and histograms
- `conditioning.py`: a source as a mixture over the states that stand far apart
- `activation.py`: activations and their kinks
- `activation_table.py`: those that have a name, a row each
- `kink_check.py`: kinks that a user did not declare
- `analyticity.py`: what a proof must know of an activation off the real axis
- `layer.py`: linear and ridge layers, and what every layer is
- `dense_layer.py`: full-width layers
- `layer_forms.py`: layers as arrays: what the engines read
- `network.py`: networks of layers, and pairs of weights as such
- `steps.py`, `folding.py`, `composition.py`: affine maps, scalings and activations, and how layers are made of them
- `activation_names.py`: what frameworks call activations
- `from_equinox.py`, `from_torch.py`, `from_scikit_learn.py`: modules of others
- `encoder.py`: softmax, Gaussian, exponential and neural encoders
- `carried_encoder.py`: the encoder that carries features on
- `compatibility.py`: do source, layer, target and encoder fit together
"""
