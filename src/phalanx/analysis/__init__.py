"""What a run was worth, what its numbers mean, and how to show them."""

__all__: list[str] = []
