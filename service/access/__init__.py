"""Who may come in: keys, tokens, certificates, and the middleware that asks for them before it reads a byte of body."""
