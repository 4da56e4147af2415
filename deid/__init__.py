"""Replace every face of an image corpus by a synthetic surrogate, and show that nothing leads back."""

__version__ = "0.1.0"
