"""The committee as processes that need not trust one another, on CometBFT: ordering, votes, decisions, replies."""
