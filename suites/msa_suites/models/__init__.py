"""The embedded model: its text, its fact grammar, its training loop, and its lm-eval class."""
