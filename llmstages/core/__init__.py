"""The contract of stages and components, and what every room needs. Standard library only."""
