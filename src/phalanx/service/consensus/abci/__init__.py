"""Messages of ABCI 2.0, generated from CometBFT v0.38.26 (see ``scripts/generate-abci``)."""
