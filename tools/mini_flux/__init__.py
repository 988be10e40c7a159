"""Training of models/mini-flux, a miniature of FLUX.1-dev, and of its scorer."""
