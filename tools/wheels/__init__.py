"""Builds the wheel of every distribution and tries each one alone, with only what it declares around it."""
