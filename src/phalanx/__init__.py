"""phalanx: a committee of reinforcement-learning agents that guards hosts."""
