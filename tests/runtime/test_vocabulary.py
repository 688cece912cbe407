"""Columns by name: ids back to text, scaled numbers back to whole ones."""

import jax.numpy as jnp
import numpy as np
from toy import ToyEnv

from phalanx.envs.simulator import Simulator
from phalanx.runtime.vocabulary import UNSEEN_TEXT, Vocabulary


def test_ids_stand_for_the_values_that_the_encoder_gave_them() -> None:
    env = Simulator()
    vocabulary = Vocabulary.of(env)
    for name, values in vocabulary.values.items():
        known = [value for value in values if value not in ("", UNSEEN_TEXT)]
        ids = np.asarray(env.encoder.category_lookup(name, known))
        assert [values[i] for i in ids] == known
        assert [column.name for column in env.spec.categorical][vocabulary.places[name]] == name
        assert len(values) == env.spec.categorical[vocabulary.places[name]].size


def test_numbers_come_back_whole() -> None:
    env = Simulator()
    vocabulary = Vocabulary.of(env)
    raw = np.zeros((3, len(env.encoder.numbers)), np.float32)
    raw[:, vocabulary.scales["remote_port"].place] = [0, 22, 8443]
    raw[:, vocabulary.scales["uid"].place] = [0, 33, 1000]
    scaled = env.encoder.scale(jnp.asarray(raw))
    for name, expected in (("remote_port", [0, 22, 8443]), ("uid", [0, 33, 1000])):
        scale = vocabulary.scales[name]
        assert np.asarray(scale.raw(scaled[:, scale.place])).tolist() == expected


def test_an_environment_without_an_encoder_has_columns_but_no_values() -> None:
    vocabulary = Vocabulary.of(ToyEnv())
    assert vocabulary.numbers == {"mark": 0, "noise": 1} and not vocabulary.values
