"""Re-identification, utility, and the recognizers that measure them."""
