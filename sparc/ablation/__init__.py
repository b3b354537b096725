"""The verb `ablate`: a grid of configurations, each trained with several seeds and measured, in one table."""
