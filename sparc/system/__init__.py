"""The machine below sparc: files that are written whole (`files`), and the memory of the process (`memory`)."""
