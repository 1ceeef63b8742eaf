"""What learns: networks, objectives and the gradient step."""
