"""Large bodies through Postern, and the memory that it takes meanwhile."""
