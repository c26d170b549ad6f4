"""What checks annotations when the engine is called: beartype, to which an integer is a number, too (PEP 484)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
