"""Training, evaluation, and the folder in which a run is kept."""
