"""The type checker that tests put around every function and record of phalanx (see ``--jaxtyping-packages``)."""

from beartype import BeartypeConf, beartype

__all__ = ["checked"]

# An int is accepted where a float is asked for, as PEP 484 and pyright have it.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
