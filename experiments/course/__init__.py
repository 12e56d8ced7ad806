"""The lessons of the course, one a function; experiments/lessons.py runs them."""
