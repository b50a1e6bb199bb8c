"""The HTTP routes: hooks, explanations, health, API documentation."""
