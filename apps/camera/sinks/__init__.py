"""Where results go: one module a kind of sink, found by the scheme of its URI."""
