"""Tables that commands print: what was measured, laid out for people."""
