"""The embedded model: its text, its fact grammar, its training loop, and its lm-eval class."""

#: Ways to a model, of :mod:`training_plan`; here, where naming them costs no import of torch.
ROUTES = ("dense", "pt", "cpt")
