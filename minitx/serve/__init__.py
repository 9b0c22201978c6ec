"""A trained run behind HTTP: a page to type texts into, and JSON with an OpenAPI schema. Needs the extra `[serve]`."""
